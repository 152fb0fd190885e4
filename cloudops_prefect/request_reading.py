"""A command of a file as an `ExecutionRequest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudops_prefect.errors import (
    InvalidCommandError,
    MissingFieldError,
    TimeoutTooLargeError,
    ValidationError,
)
from cloudops_prefect.mistakes import field_text
from cloudops_prefect.models import ExecutionRequest, ShellCommand
from cloudops_prefect.short_forms import expand
from cloudops_prefect.wrong_types import checked, path_of

if TYPE_CHECKING:
    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.findings import Findings
    from cloudops_prefect.mistakes import FieldPath
    from cloudops_prefect.short_forms import Expansion, Fields

STAND_IN = ExecutionRequest(command=ShellCommand(command="true"))
"""Takes the place of a command that can't be read, while the rest of a file is checked."""


def read_single_request(findings: Findings, config: ExecutionConfig | None) -> ExecutionRequest:
    """Return the request that a whole file describes, or the stand-in if it can't be read."""
    fields = findings.object("a command must be an object, like `run: make test`")
    if fields is None:
        return STAND_IN
    if fields.get("needs") is not None:
        findings.add(("needs",), "only a command of a plan can wait for others", of_name=True)
    entry: Fields = {name: value for name, value in fields.items() if name != "$schema"}
    return read_request(expand(entry, (), findings), findings, config)


def read_request(
    expansion: Expansion, findings: Findings, config: ExecutionConfig | None
) -> ExecutionRequest:
    """Return a request, or the stand-in if it can't be built; mistakes go to the findings."""
    # Where the command is missing or wrong, the other fields are checked all the same.
    with_stand_in = {**expansion.fields, "command": STAND_IN.command}
    fields = expansion.fields if "command" in expansion.fields else with_stand_in
    request = checked(ExecutionRequest, fields, findings, expansion.place_of)
    request = request or checked(ExecutionRequest, with_stand_in, findings, expansion.place_of)
    if request is None:
        return STAND_IN
    _find_shape_errors(request, expansion, findings)
    _find_long_timeout(request, expansion, findings, config)
    return request


def _find_shape_errors(request: ExecutionRequest, expansion: Expansion, findings: Findings) -> None:
    of_command = sum(1 for _ in request.command.shape_errors())
    for index, error in enumerate(request.shape_errors()):
        inside = ("command",) if index < of_command else ()
        path = expansion.place_of((*inside, *path_of(error.field or "")))
        if isinstance(error, MissingFieldError):
            findings.add_missing(path)
        else:
            kind = "command" if isinstance(error, InvalidCommandError) else "other"
            findings.add(path, message_at(path, error), kind=kind)


def message_at(path: FieldPath, error: ValidationError) -> str:
    """Return what an error says, without the field's name if the path ends with it."""
    field = error.field or ""
    named = field_text(path).endswith(field)
    return error.detail.removeprefix(f"{field} ") if named else error.detail


def _find_long_timeout(
    request: ExecutionRequest,
    expansion: Expansion,
    findings: Findings,
    config: ExecutionConfig | None,
) -> None:
    timeout_ms = request.timeout_ms
    if config is not None and timeout_ms is not None and timeout_ms > config.max_timeout_ms:
        error = TimeoutTooLargeError(timeout_ms, config.max_timeout_ms)
        findings.add(expansion.place_of(("timeout_ms",)), str(error), error.hint)
