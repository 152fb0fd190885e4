"""Commands that draw plans and runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.arguments import LAST, Json, id_text, is_id
from cloudops_prefect.cli.root import Id, app, connect, valid_plan
from cloudops_prefect.errors import ValidationError

if TYPE_CHECKING:
    from cloudops_prefect.cli.picture import Picture

Format = Literal["tree", "mermaid", "dot", "svg", "png"]
_SUFFIXES = {"mmd": "mermaid", "mermaid": "mermaid", "dot": "dot", "svg": "svg", "png": "png"}


@app.command
def graph(
    plan_or_id: Annotated[str, Parameter(name="PLAN_OR_ID")],
    /,
    *,
    format_: Annotated[Format | None, Parameter(name="--format")] = None,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    json: Json = False,
) -> int:
    """Draw a plan, or a run of one with states, durations and the critical path.

    Parameters
    ----------
    plan_or_id
        A YAML or JSON file, - for standard input, or an execution: its id, or `last`.
    format_
        tree (in the terminal), mermaid, dot, svg or png; else what the output's name says.
    output
        A file to write to; svg and png need one in a terminal.
    """
    if json and (format_ or output):
        raise ValidationError("--json prints the graph itself; leave out --format and --output")
    kind = format_ or _kind_of(output)
    # Before anything is asked of the API.
    if kind in {"svg", "png"} and output is None and sys.stdout.isatty():
        raise ValidationError(f"--format {kind} wants a file in a terminal: --output plan.{kind}")
    picture = _picture(plan_or_id, json=json)
    if json:
        printing.json_document(picture.document())
    elif kind == "tree" and output is None:
        from cloudops_prefect.cli.plan_tree import print_tree

        print_tree(picture)
    else:
        _write(_content(picture, kind), output)
    return exit_codes.COMPLETED


@app.command
def timeline(id_: Id, /, *, json: Json = False) -> int:
    """Draw which command of an execution ran when."""
    picture = _picture_of_run(id_)
    if json:
        printing.json_document(picture.document())
    else:
        from cloudops_prefect.cli.timeline import print_timeline

        print_timeline(picture)
    return exit_codes.COMPLETED


def _kind_of(output: Path | None) -> str:
    if output is None:
        return "tree"
    suffix = output.suffix.removeprefix(".")
    if suffix not in _SUFFIXES:
        raise ValidationError(f"{output}: name it .svg, .png, .mmd or .dot, or give --format")
    return _SUFFIXES[suffix]


def _picture(plan_or_id: str, *, json: bool) -> "Picture":
    from cloudops_prefect.cli.picture import Picture

    if _is_plan_file(plan_or_id):
        return Picture.of(valid_plan(Path(plan_or_id), json=json))
    if not is_id(plan_or_id):
        raise ValidationError(
            f"{plan_or_id!r} is neither a file nor an id that `cloudops list` shows"
        )
    return _picture_of_run(plan_or_id)


def _is_plan_file(plan_or_id: str) -> bool:
    path = Path(plan_or_id)
    if path.suffix in {".yaml", ".yml", ".json"}:
        return True
    if not is_id(plan_or_id):
        return path.exists()
    if path.is_file():
        meaning = "the newest run" if plan_or_id == LAST else "the beginning of an id"
        raise ValidationError(
            f"{plan_or_id!r} is ambiguous: it is a file here, and can be {meaning}; "
            f"write ./{plan_or_id} for the file, or more of the id"
        )
    return False


def _picture_of_run(text: str) -> "Picture":
    import asyncio

    checked = id_text(text)
    connect()
    from cloudops_prefect.cli.api import resolve
    from cloudops_prefect.cli.run_facts import picture_of_run

    async def read() -> "Picture":
        return await picture_of_run(await resolve(checked))

    return asyncio.run(read())


def _content(picture: "Picture", kind: str) -> bytes:
    if kind in {"svg", "png"}:
        from cloudops_prefect.cli.drawing import draw

        return draw(picture, "svg" if kind == "svg" else "png")
    from cloudops_prefect.cli import picture_text

    if kind == "tree":
        raise ValidationError("a tree is for the terminal; --output wants another --format")
    lines = picture_text.mermaid(picture) if kind == "mermaid" else picture_text.dot(picture)
    return "".join(f"{line}\n" for line in lines).encode()


def _write(content: bytes, output: Path | None) -> None:
    if output is None:
        printing.content(content)
        return
    output.write_bytes(content)
    printing.error_line(f"Wrote {output}")
