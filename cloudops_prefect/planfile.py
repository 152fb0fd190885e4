"""Plans and requests as YAML or JSON files, in the contract's form or a shorter one.

A path in a file stays as it is written: a relative one starts in the directory of the process that
runs the command, not in the file's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cloudops_prefect.errors import InvalidPlanError, ValidationError
from cloudops_prefect.findings import Findings
from cloudops_prefect.mistakes import Mistake, error_of
from cloudops_prefect.plan_reading import read_plan
from cloudops_prefect.planfile_schema import json_schema
from cloudops_prefect.request_reading import read_single_request
from cloudops_prefect.unicode_text import path_text

if TYPE_CHECKING:
    import os

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.models import ExecutionPlan, ExecutionRequest

__all__ = [
    "load_plan",
    "load_plan_and_warnings",
    "load_request",
    "parse_plan",
    "parse_request",
    "check_plan",
    "check_request",
    "plan_warnings",
    "json_schema",
    "Mistake",
    "PlanFile",
]


# Nobody can read a pipe or a terminal a second time.
_NO_REAL_FILES = (Path("/dev"), Path("/proc"))


@dataclass(frozen=True, slots=True)
class PlanFile:
    """The file that a plan was read from.

    Attributes:
        path: Its absolute path.
        digest: The SHA-256 of its content, in hexadecimal.
    """

    path: Path
    digest: str

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self | None:
        """Return a file with its present digest, None if there is no regular file to read again."""
        file = Path(path).expanduser().absolute()
        if any(file.is_relative_to(directory) for directory in _NO_REAL_FILES):
            return None
        try:
            content = file.read_bytes() if file.is_file() else None
        except OSError:
            return None
        return None if content is None else cls(file, hashlib.sha256(content).hexdigest())

    def has_changed(self) -> bool:
        """Return whether the file is there with another content."""
        now = PlanFile.read(self.path)
        return now is not None and now.digest != self.digest


def load_plan(path: str | os.PathLike[str], config: ExecutionConfig | None = None) -> ExecutionPlan:
    """Read a plan from a YAML or JSON file; arguments as `parse_plan`.

    Raises:
        InvalidPlanError: The file can't be read, or as `parse_plan`.
        ValidationError: As `parse_plan`.
    """
    plan, _ = load_plan_and_warnings(path, config)
    return plan


def load_plan_and_warnings(
    path: str | os.PathLike[str], config: ExecutionConfig | None = None
) -> tuple[ExecutionPlan, list[Mistake]]:
    """Read a plan as `load_plan`, and return with it what `plan_warnings` says of it."""
    return _valid_plan(_text_of(path, InvalidPlanError), path_text(Path(path)), config)


def load_request(path: str | os.PathLike[str]) -> ExecutionRequest:
    """Read a single command from a YAML or JSON file.

    Raises:
        ValidationError: The file can't be read, or as `parse_request`.
    """
    return parse_request(_text_of(path, ValidationError), path_text(Path(path)))


def parse_plan(
    text: str, source: str = "plan", config: ExecutionConfig | None = None
) -> ExecutionPlan:
    """Read a plan from YAML or JSON.

    Args:
        text: The content of a plan file.
        source: What messages call it; its end decides nothing but that `.json` must be JSON.
        config: If given, timeouts above its maximum are refused too.

    Raises:
        MissingFieldError: A required field is absent or empty.
        InvalidCommandError: A value can't be part of a command.
        InvalidPlanError: Anything else, or more than one mistake; the message has the file, line
            and field of each.
    """
    plan, _ = _valid_plan(text, source, config)
    return plan


def _valid_plan(
    text: str, source: str, config: ExecutionConfig | None
) -> tuple[ExecutionPlan, list[Mistake]]:
    findings = Findings(text, source)
    plan = read_plan(findings, config)
    if findings.mistakes:
        raise error_of(findings.mistakes)
    return plan, findings.warnings


def parse_request(text: str, source: str = "request") -> ExecutionRequest:
    """Read a single command from YAML or JSON.

    Raises:
        MissingFieldError: A required field is absent or empty.
        InvalidCommandError: A value can't be part of a command.
        ValidationError: Anything else, or more than one mistake; the message has the file, line and
            field of each.
    """
    findings = Findings(text, source)
    request = read_single_request(findings, None)
    if findings.mistakes:
        raise error_of(findings.mistakes, ValidationError)
    return request


def check_plan(
    text: str, source: str = "plan", config: ExecutionConfig | None = None
) -> list[Mistake]:
    """Return all mistakes of a plan file, in the order of the text.

    Args:
        text: The content of a plan file.
        source: What messages call it.
        config: If given, timeouts above its maximum are mistakes too.
    """
    findings = Findings(text, source)
    read_plan(findings, config)
    return findings.mistakes


def plan_warnings(
    text: str, source: str = "plan", config: ExecutionConfig | None = None
) -> list[Mistake]:
    """Return what a valid plan may not mean as it is written, in the order of the text.

    So far that is shell syntax in places that no shell reads, like `$HOME` in `exec`.

    Args:
        text: The content of a plan file.
        source: What messages call it.
        config: If given, variables that its `redact_env` names are not looked at.
    """
    findings = Findings(text, source)
    read_plan(findings, config)
    return findings.warnings


def check_request(
    text: str, source: str = "request", config: ExecutionConfig | None = None
) -> list[Mistake]:
    """Return all mistakes of a request file, as `check_plan`."""
    findings = Findings(text, source)
    read_single_request(findings, config)
    return findings.mistakes


def _text_of(path: str | os.PathLike[str], refusal: type[ValidationError]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise refusal(f"{_place(path, error)}: not UTF-8; save the file in that encoding") from None
    except ValueError as error:
        raise refusal(f"{path!r}: {error}") from None
    except OSError as error:
        raise refusal(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _place(path: str | os.PathLike[str], error: UnicodeDecodeError) -> str:
    before = error.object[: error.start].decode()
    line_start = before.rfind("\n") + 1
    return f"{path}:{before.count(chr(10)) + 1}:{len(before) - line_start + 1}"
