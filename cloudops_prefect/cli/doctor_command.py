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
    """Look for what is missing; the exit code is 1 if something is.

    Parameters
    ----------
    fix
        Create what is missing on the server.
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
    sound = all(finding.ok for finding in findings)
    return exit_codes.COMPLETED if sound else exit_codes.FAILED


def _print(finding: "Finding") -> None:
    printing.line(f"{'ok' if finding.ok else 'no':<3} {finding.subject}: {finding.detail}")
    if not finding.ok:
        printing.line(f"    {finding.advice}")


def _fields(finding: "Finding") -> dict[str, object]:
    return {
        "subject": finding.subject,
        "ok": finding.ok,
        "detail": finding.detail,
        "advice": finding.advice,
    }
