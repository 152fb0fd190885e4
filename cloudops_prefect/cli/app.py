"""A command line, run to its exit code."""

import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import cast

from cyclopts import CycloptsError

from cloudops_prefect.cli import (
    doctor_command,
    exit_codes,
    look_commands,
    picture_commands,
    plan_commands,
    printing,
    run_commands,
    standard_streams,
    usage,
)
from cloudops_prefect.cli.arguments import stdin_named, verbatim
from cloudops_prefect.cli.refused import RefusedPlanError
from cloudops_prefect.cli.root import app
from cloudops_prefect.cli.server_app import server_app
from cloudops_prefect.errors import ExecutionError, ValidationError
from cloudops_prefect.unicode_text import is_valid_text, quoted_bytes

# Importing these has registered their commands.
COMMANDS = (run_commands, look_commands, plan_commands, picture_commands, doctor_command)
app.command(server_app)
_SHOW_A_RUN = (["run"], ["resume"], ["watch"])


def main() -> None:
    """Runs what the command line says and exits with the code that says how it went."""
    tokens = sys.argv[1:]
    code = run_tokens(tokens)
    if (loss := standard_streams.loss_of(sys.stdout)) is not None:
        printing.error_line(f"error: not all could be printed: {loss}")
        # What is printed of a plan's run is a view: the run has its own end, and its logs.
        if tokens[:1] not in _SHOW_A_RUN:
            code = code or exit_codes.FAILED
    sys.exit(code)


def run_tokens(tokens: Sequence[str]) -> int:
    """Runs one command line; returns its exit code.

    Errors that people can do something about become one line on standard error; where JSON is
    asked for, an object on standard output.
    """
    words = verbatim(stdin_named(tokens))
    try:
        return app(words) or exit_codes.COMPLETED
    except KeyboardInterrupt:
        return exit_codes.CANCELLED
    except RefusedPlanError as refused:
        return refused.report()
    except Exception as error:
        cause = _cause(error)
        if (complaint := _complaint(cause, words)) is None:
            raise
        _print_complaint(complaint, cause, words)
        bad_input = isinstance(cause, (CycloptsError, ValidationError, UnicodeEncodeError))
        return exit_codes.BAD_INPUT if bad_input else exit_codes.FAILED


def _print_complaint(complaint: str, error: Exception, words: Sequence[str]) -> None:
    if "--json" in takewhile(lambda word: word != "--", words):
        # One line, since where events are printed, each line is a document.
        printing.json_line({"error": complaint, "type": type(error).__name__})
    else:
        printing.error_line(f"error: {complaint}")


def _cause(error: Exception) -> Exception:
    """What a task group has wrapped."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error


def _complaint(error: Exception, words: Sequence[str]) -> str | None:
    """What to tell the user; None if only a traceback can."""
    if isinstance(error, CycloptsError):
        return usage.complaint(error)
    if isinstance(error, ValidationError) and error.hint:
        return f"{error}; {error.hint}"
    if isinstance(error, ExecutionError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, UnicodeEncodeError) and (wrong := _invalid_text(words)) is not None:
        return f"{quoted_bytes(wrong)} is not UTF-8: the Prefect API can't be asked for it"
    return None


def _invalid_text(words: Sequence[str]) -> str | None:
    return next((word for word in words if not is_valid_text(word)), None)
