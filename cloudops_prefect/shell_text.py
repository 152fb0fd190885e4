"""Shell text of any length: what is too long for an argument is read from a file without a name."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

# `eval` keeps `$0`, `$@`, stdin and the exit code as `-c` has them; `.` and a script file don't.
# A file that can't be read ends the shell: an empty text would count as success.
_POSIX = '__text=$({cat} {file}) || exit 126; eval "unset __text; $__text"'
_FISH = "test -r {file}; or exit 126; eval ({cat} {file} | string collect -N)"
_POSIX_SHELLS = ("ash", "bash", "dash", "ksh", "lksh", "mksh", "oksh", "osh", "sh", "yash", "zsh")
HAS_MEMORY_FILES = hasattr(os, "memfd_create")
"""Whether the system has files without a name; macOS has none, and no limit of one argument."""

_LOADERS = dict.fromkeys(_POSIX_SHELLS, _POSIX) | {"fish": _FISH}


def can_be_long(shell: str) -> bool:
    """Return whether a shell can be given text that is too long for an argument."""
    return _family(shell) in _LOADERS


@contextmanager
def text_in_memory(shell: str, text: str) -> Generator[str]:
    """Give a short text that has `shell` run a long one, as long as the context is open.

    The long text is in a file in memory that only this process has open, so it is in no process
    list and no environment, no command inherits it, and nothing is left of it when this process
    dies.

    Args:
        shell: A shell for which `can_be_long` is true.
        text: What it is to run.

    Raises:
        OSError: The file can't be made.
    """
    fd = os.memfd_create("cloudops-shell-text")
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(_kept_through_substitution(text).encode())
        # Not `/proc/self`: it is `cat` that opens it.
        path = f"/proc/{os.getpid()}/fd/{fd}"
        yield _LOADERS[_family(shell)].format(cat=_cat(), file=path)
    finally:
        os.close(fd)


def _kept_through_substitution(text: str) -> str:
    # `$(…)` removes newlines at the end, and one behind a backslash continues a line.
    return f"{text}#" if text.endswith("\n") else text


def _family(shell: str) -> str:
    return PurePath(shell).name.rstrip("-.0123456789")


def _cat() -> str:
    # The request may set a PATH without it.
    return shutil.which("cat", path=os.defpath) or shutil.which("cat") or "cat"
