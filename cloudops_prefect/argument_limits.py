"""How much the system passes to a program: the sizes of arguments and environment variables."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_STRING_BYTES = 131_071
"""The longest argument, and the longest `NAME=value`, that Linux passes to a program.

It is MAX_ARG_STRLEN of a kernel with pages of 4 KiB, without the NUL at the string's end.
"""

USUAL_TOTAL_BYTES = 2_097_152
"""What Linux passes in all where the stack may have 8 MiB, which is the usual `ulimit -s`."""

_POINTER_BYTES = 8
_LEAST_TOTAL_BYTES = 131_072
_MOST_TOTAL_BYTES = 6 * 1024 * 1024
# The kernel stores the program's path as well, and a command's environment gets a mark of ours.
_RESERVED_BYTES = 8_192


def size_of(text: str) -> int:
    """Return the bytes of an argument or a `NAME=value`, without the NUL at its end."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def total_size(argv: Iterable[str], env: Mapping[str, str]) -> int:
    """Return the bytes that the kernel counts: each string, its NUL and the pointer to it."""
    overhead = 1 + _POINTER_BYTES
    arguments = sum(size_of(argument) + overhead for argument in argv)
    return arguments + sum(variable_size(*variable) + overhead for variable in env.items())


def variable_size(name: str, value: str) -> int:
    """Return the bytes of a variable as the kernel passes it, `NAME=value`."""
    return size_of(name) + 1 + size_of(value)


def max_total_bytes() -> int:
    """Return how many bytes of arguments and environment this machine passes to a command."""
    if sys.platform != "linux":
        return os.sysconf("SC_ARG_MAX") - _RESERVED_BYTES
    import resource

    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    quarter = _MOST_TOTAL_BYTES if stack == resource.RLIM_INFINITY else stack // 4
    return max(_LEAST_TOTAL_BYTES, min(quarter, _MOST_TOTAL_BYTES)) - _RESERVED_BYTES


def size_complaint(argv: Sequence[str], env: Mapping[str, str]) -> str | None:
    """Return why this machine can't pass these arguments and variables, or None if it can.

    The complaint quotes no value: it may be a secret.
    """
    if sys.platform == "linux":
        for index, argument in enumerate(argv):
            if size_of(argument) > MAX_STRING_BYTES:
                return too_long(f"argument {index}", size_of(argument))
        for name, value in env.items():
            if variable_size(name, value) > MAX_STRING_BYTES:
                return too_long(f"env[{name}]", variable_size(name, value))
    size, maximum = total_size(argv, env), max_total_bytes()
    return None if size <= maximum else too_much(size, maximum)


def too_long(what: str, size: int, way_out: str = "put it into a file and pass its name") -> str:
    """Return the complaint about one string."""
    return f"{what} has {size} bytes, but Linux passes at most {MAX_STRING_BYTES}; {way_out}"


def too_much(size: int, maximum: int) -> str:
    """Return the complaint about all arguments and variables together."""
    return (
        f"arguments and environment have {size} bytes together, but the system passes at most "
        f"{maximum}; put the longest into a file and pass its name"
    )
