"""The command `cloudops doctor`."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.arguments import Json
from cloudops_prefect.cli.root import app, connect, run_async

if TYPE_CHECKING:
    from cloudops_prefect.doctor import Finding


@app.command
def doctor(*, fix: Annotated[bool, Parameter(negative="")] = False, json: Json = False) -> int:
    """Examine what cloudops needs; the exit code is 1 if something is broken.

    What is merely not set up is a note.

    Parameters
    ----------
    fix
        Create what is missing on the server, and repair what was altered there.
    json
        Print JSON.
    """
    connect()
    return run_async(_examine(fix=fix, json=json))


async def _examine(*, fix: bool, json: bool) -> int:
    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.doctor import examine

    findings = await examine(ExecutionConfig.load(), fix=fix)
    if json:
        printing.json_document([_fields(finding) for finding in findings])
    else:
        for finding in findings:
            _print(finding)
    is_broken = any(finding.level == "broken" for finding in findings)
    return exit_codes.FAILED if is_broken else exit_codes.COMPLETED


def _print(finding: "Finding") -> None:
    printing.line(f"{finding.level:<8}{finding.subject}: {finding.detail}")
    if finding.advice:
        printing.line(f"{'':<8}{finding.advice}")


def _fields(finding: "Finding") -> dict[str, object]:
    return {
        "subject": finding.subject,
        "ok": finding.ok,
        "level": finding.level,
        "detail": finding.detail,
        "advice": finding.advice,
    }
