"""A plan in the languages of programs that draw graphs: Mermaid and DOT."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing

if TYPE_CHECKING:
    from cloudops_prefect.cli.picture import Picture

FILLS = {
    "completed": "#c9ecd0",
    "failed": "#f7c6c5",
    "timeout": "#f7c6c5",
    "cancelled": "#f4e3b3",
    "running": "#c5dcf7",
    "pending": "#ececec",
    "": "#eef2f7",
}
"""How a box is filled, by the status of its command."""


def caption(picture: "Picture", index: int) -> list[str]:
    """The lines in a command's box."""
    duration = picture.duration(index)
    lines = [picture.names[index]]
    if status := picture.status(index):
        took = "" if duration is None else f" {printing.seconds(duration)}"
        lines.append(f"{status}{took}")
    return lines


def critical_edges(picture: "Picture") -> set[tuple[int, int]]:
    """The edges along the critical path."""
    path = picture.critical_path
    return set(pairwise(path))


def mermaid(picture: "Picture") -> Iterator[str]:
    """Yields the lines of a Mermaid flowchart."""
    yield "flowchart LR"
    for index in picture.graph:
        label = "<br>".join(map(_escaped, caption(picture, index)))
        status = picture.status(index)
        yield f'  c{index}["{label}"]' + (f":::{status}" if status else "")
    critical = critical_edges(picture)
    for before, after in sorted(picture.graph.edges):
        arrow = "==>" if (before, after) in critical else "-->"
        yield f"  c{before} {arrow} c{after}"
    if picture.facts is not None:
        for status, fill in FILLS.items():
            if status:
                yield f"  classDef {status} fill:{fill},color:#222222"


def dot(picture: "Picture") -> Iterator[str]:
    """Yields the lines of a DOT graph."""
    yield f"digraph {_quoted(picture.title)} {{"
    yield '  rankdir=LR; node [shape=box, style="rounded,filled", fontname="sans-serif"];'
    for index in picture.graph:
        label = "\\n".join(_quoted(text)[1:-1] for text in caption(picture, index))
        yield f'  c{index} [label="{label}", fillcolor="{FILLS[picture.status(index)]}"];'
    critical = critical_edges(picture)
    for before, after in sorted(picture.graph.edges):
        yield f"  c{before} -> c{after}" + (
            " [penwidth=3];" if (before, after) in critical else ";"
        )
    yield "}"


def _escaped(text: str) -> str:
    # Mermaid reads Markdown and HTML in labels; its own entities are the numbers of characters.
    return "".join(
        letter if letter.isalnum() or letter in " -_.,:/=+@" else f"#{ord(letter)};"
        for letter in text
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
