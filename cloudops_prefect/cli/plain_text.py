"""Lines of output as they can be shown: what would steer a terminal is left out."""

import re

_CODES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?|[\x80-\x9f]"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def plain(line: str) -> str:
    """A line without control codes: what a terminal would show of it in the end."""
    # What a progress bar has written over.
    kept = [part for part in _CODES.sub("", line).split("\r") if part.strip()]
    return _CONTROLS.sub("", kept[-1]) if kept else ""


def printable(line: str) -> str:
    """A line as one that a terminal shows in one row and obeys in nothing."""
    return "".join(letter if letter.isprintable() else " " for letter in plain(line)).strip()
