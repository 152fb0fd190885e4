"""Text that UTF-8 can write, made of text that may hold bytes of file names or the environment.

Python decodes such bytes as lone surrogates where they are not UTF-8. Neither JSON nor the Prefect
API takes those.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SURROGATE = re.compile("[\ud800-\udfff]")


def valid_text(text: str) -> str:
    """Return the text with a replacement character in the place of each lone surrogate."""
    return text if text.isascii() else _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def path_text(path: Path) -> str:
    """Return a path as text to be shown or sent; a program has to be given the path itself."""
    return valid_text(str(path))


def is_valid_text(text: str) -> bool:
    """Return whether UTF-8 can write the text."""
    return text.isascii() or _SURROGATE.search(text) is None


def quoted_bytes(text: str) -> str:
    r"""Return text that is not valid as bash writes its bytes: `$'caf\xe9'`."""
    try:
        data = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        # Lone surrogates that stand for no byte: somebody has written them so, in JSON say.
        return ascii(text)
    plain = {*range(ord(" "), ord("~") + 1)} - {*b"\\'"}
    written = (chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in data)
    return f"$'{''.join(written)}'"
