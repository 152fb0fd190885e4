"""Lines of output as they can be shown: what would steer a terminal is left out."""

import re

_CODES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?|[\x80-\x9f]"
)
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_END_OF_COLOURS = "\x1b[0m"
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def plain(line: str) -> str:
    """A line without control codes: what a terminal would show of it in the end."""
    return _CONTROLS.sub("", _CODES.sub("", _seen_last(line)))


def coloured(line: str) -> str:
    """A line as `plain` has it, in its colours, which end with it."""
    texts = [plain(text) for text in _COLOURS.split(_seen_last(line))]
    if len(texts) == 1:
        return texts[0]
    colours = [*_COLOURS.findall(_seen_last(line)), _END_OF_COLOURS]
    return "".join(f"{text}{colour}" for text, colour in zip(texts, colours, strict=True))


def _seen_last(line: str) -> str:
    """What no later part of a line has been written over, as those of a progress bar are."""
    seen = [part for part in line.split("\r") if _CODES.sub("", part).strip()]
    return seen[-1] if seen else ""


def printable(line: str) -> str:
    """A line as one that a terminal shows in one row and obeys in nothing."""
    return indented(line).strip()


def indented(line: str) -> str:
    """A line as `printable` has it, but for the blanks around it."""
    return "".join(letter if letter.isprintable() else " " for letter in plain(line))
