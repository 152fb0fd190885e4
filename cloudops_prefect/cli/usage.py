"""A command line that can't be understood, told with where to read how it is written."""

import shlex

from cyclopts import CycloptsError
from cyclopts.exceptions import UnusedCliTokensError


def complaint(error: CycloptsError) -> str:
    """What is wrong, and which help says what would be right."""
    read = " ".join(["cloudops", *(error.command_chain or ()), "--help"])
    return f"{_what(error)} See `{read}`."


def _what(error: CycloptsError) -> str:
    if not isinstance(error, UnusedCliTokensError):
        return str(error)
    what = f"Unexpected argument: {shlex.join(error.unused_tokens or ())}."
    in_shell = [*(error.command_chain or ())] == ["shell"]
    return f"{what} Put the whole line in quotes." if in_shell else what
