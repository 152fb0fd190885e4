"""Commands for people to paste into a shell, quoted so that the shell reads the same words."""

from __future__ import annotations

import shlex
from pathlib import Path

from cloudops_prefect.unicode_text import quoted_bytes


def command_line(*words: object) -> str:
    """Return the words of a command as a POSIX shell needs them.

    Args:
        words: Texts, ids and so on. A path that begins with a dash gets `./` before it, so that no
            program takes it for an option.
    """
    return " ".join(_quote(_text(word)) for word in words)


def option(name: str, value: str) -> list[str]:
    """Return the words of an option and its value, one word if the value begins with a dash."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def _text(word: object) -> str:
    text = str(word)
    return f"./{text}" if isinstance(word, Path) and text.startswith("-") else text


def _quote(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    # Control characters and bytes that are not UTF-8 can't be pasted themselves. bash, zsh, ksh and
    # POSIX 2024 know this form.
    return quoted_bytes(word)
