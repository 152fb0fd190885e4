"""Warnings about plans, printed for people and for programs."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing
from cloudops_prefect.shell_words import command_line
from cloudops_prefect.shown import redactor_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.mistakes import Mistake
    from cloudops_prefect.models import ExecutionPlan

_CREDENTIALS = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")
_SHOWN_BESIDE_A_RUN = 20


def api_credentials() -> list[str]:
    """Return what the API knows this process by; Prefect may know more, but is slow to import."""
    return [os.environ[name] for name in _CREDENTIALS if name in os.environ]


def without_secrets(
    warnings: "Sequence[Mistake]", plan: "ExecutionPlan", config: "ExecutionConfig"
) -> "list[Mistake]":
    """Return warnings about a plan with a mask in the place of each secret that is known here."""
    redactor = redactor_for(config, plan.commands, api_credentials())
    return [
        replace(
            warning,
            field=redactor.text(warning.field),
            message=redactor.text(warning.message),
            hint=warning.hint and redactor.text(warning.hint),
            text=redactor.text(warning.text),
        )
        for warning in warnings
    ]


def print_warnings(warnings: "Sequence[Mistake]") -> None:
    """Print warnings on standard error, each with its place."""
    for warning in warnings:
        printing.error_line(f"warning: {warning}")


def print_some_warnings(warnings: "Sequence[Mistake]", plan_file: Path) -> None:
    """Print warnings beside something else, and where the others are listed if there are many."""
    print_warnings(warnings[:_SHOWN_BESIDE_A_RUN])
    if left := len(warnings[_SHOWN_BESIDE_A_RUN:]):
        command = command_line("cloudops", "validate", plan_file)
        printing.error_line(f"warning: and {left} more; to list them: {command}")
