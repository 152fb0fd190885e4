"""A command line, run to its exit code."""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, cast

from cyclopts import CycloptsError

from cloudops_prefect.cli import (
    doctor_command,
    exit_codes,
    look_commands,
    picture_commands,
    plan_commands,
    printing,
    run_commands,
)
from cloudops_prefect.cli.arguments import verbatim
from cloudops_prefect.cli.root import app
from cloudops_prefect.cli.server_app import server_app
from cloudops_prefect.errors import ExecutionError, ValidationError

# Importing these has registered their commands.
COMMANDS = (run_commands, look_commands, plan_commands, picture_commands, doctor_command)
app.command(server_app)


def main() -> None:
    """Runs what the command line says and exits with the code that says how it went."""
    if isinstance(sys.stdout, TextIOWrapper):
        cast("TextIOWrapper[Any]", sys.stdout).reconfigure(errors="backslashreplace")
    sys.exit(run_tokens(sys.argv[1:]))


def run_tokens(tokens: Sequence[str]) -> int:
    """Runs one command line; returns its exit code.

    Errors that people can do something about become one line on standard error.
    """
    try:
        return app(verbatim(tokens)) or exit_codes.COMPLETED
    except KeyboardInterrupt:
        return exit_codes.CANCELLED
    except Exception as error:
        cause = _cause(error)
        if (complaint := _complaint(cause)) is None:
            raise
        printing.error_line(f"error: {complaint}")
        bad_input = isinstance(cause, (CycloptsError, ValidationError))
        return exit_codes.BAD_INPUT if bad_input else exit_codes.FAILED


def _cause(error: Exception) -> Exception:
    """What a task group has wrapped."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error


def _complaint(error: Exception) -> str | None:
    """What to tell the user; None if only a traceback can."""
    if isinstance(error, (CycloptsError, ExecutionError)):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None
