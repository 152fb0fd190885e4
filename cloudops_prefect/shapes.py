"""Checks of a value's shape that need nothing but the value: each yields what it refuses."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from cloudops_prefect import argument_limits
from cloudops_prefect.errors import InvalidCommandError, MissingFieldError, ValidationError
from cloudops_prefect.shell_text import can_be_long
from cloudops_prefect.unicode_text import is_valid_text, quoted_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_NAME_A_FILE = "put it into a file and pass its name"
_SHELLS_OF_OTHER_NAMES = frozenset({"nu", "elvish"})


def text_errors(field: str, value: str | PurePath) -> Iterator[ValidationError]:
    """Refuse a NUL byte, which no program can be given, and text that UTF-8 can't write.

    A command travels to the Prefect API as JSON, which has no other text.
    """
    text = str(value)
    if "\0" in text:
        yield InvalidCommandError(f"{field} contains a NUL byte", field)
    elif not is_valid_text(text):
        yield InvalidCommandError(
            f"{field} can't be written as UTF-8: {quoted_bytes(text)}; a shell command can name "
            "it so, with $'…'",
            field,
        )


def path_errors(field: str, path: PurePath) -> Iterator[ValidationError]:
    """Refuse a path that no program can be given, or that only a shell could read."""
    yield from text_errors(field, path)
    if path.parts[:1] == ("~",):
        yield InvalidCommandError(
            f"{field} can't begin with `~`, which only a shell replaces; write the whole path",
            field,
        )


def required_errors(field: str, value: str) -> Iterator[ValidationError]:
    """Refuse a required text that is empty, blank or unusable."""
    if value.strip():
        yield from text_errors(field, value)
    else:
        yield MissingFieldError(field)


def optional_errors(field: str, value: str | None) -> Iterator[ValidationError]:
    """Refuse an optional text that is there but empty, an option, or unusable."""
    if value is None:
        return
    if not value.strip():
        yield InvalidCommandError(f"{field} is empty; leave it out instead", field)
    elif value.startswith("-"):
        yield InvalidCommandError(f"{field} can't be an option: `{value}`", field)
    yield from text_errors(field, value)


def args_errors(args: Iterable[str], way_out: str = _NAME_A_FILE) -> Iterator[ValidationError]:
    """Refuse arguments that no program can be given; an empty one is fine.

    Args:
        args: The arguments.
        way_out: What to do about one that is too long.
    """
    for index, argument in enumerate(args):
        field = f"args[{index}]"
        yield from text_errors(field, argument)
        yield from _length_errors(field, argument_limits.size_of(argument), way_out)


def _length_errors(field: str, size: int, way_out: str) -> Iterator[ValidationError]:
    if size > argument_limits.MAX_STRING_BYTES:
        yield InvalidCommandError(argument_limits.too_long(field, size, way_out), field)


def shell_text_errors(text: str, shell: str) -> Iterator[ValidationError]:
    """Refuse text that is too long for an argument of a shell that can't read it otherwise."""
    size = argument_limits.size_of(text)
    if not can_be_long(shell):
        yield from _length_errors("command", size, f"`{shell}` can read it from a script file")


def total_size_errors(args: Sequence[str], env: Mapping[str, str]) -> Iterator[ValidationError]:
    """Refuse arguments and variables that are too much together, although none is by itself."""
    of_args = argument_limits.total_size(args, {})
    of_env = argument_limits.total_size((), env)
    maximum = argument_limits.USUAL_TOTAL_BYTES
    if of_args + of_env > maximum:
        complaint = argument_limits.too_much(of_args + of_env, maximum)
        yield InvalidCommandError(complaint, "command.args" if of_args > of_env else "env")


def word_errors(field: str, value: str) -> Iterator[ValidationError]:
    """Refuse what isn't one word, such as an option where the AWS CLI wants a service."""
    if value.startswith("-"):
        yield InvalidCommandError(
            f"{field} can't be an option: `{value}`; options belong in args", field
        )
    elif value.strip() and value.split() != [value]:
        yield InvalidCommandError(f"{field} must be one word, not `{value}`", field)
    yield from required_errors(field, value)


def shell_errors(shell: str) -> Iterator[ValidationError]:
    """Refuse a shell that isn't the name or path of one.

    Shells are told by their names: nearly all end in `sh`, some with a version behind (`bash-5.2`).
    """
    name = PurePath(shell).name
    stem = name.rstrip("-.0123456789")
    if shell.split() != [shell] or shell.startswith("-"):
        yield InvalidCommandError(
            f"shell must be one name or path without options, not `{shell}`", "shell"
        )
    elif not (stem.endswith("sh") or name in _SHELLS_OF_OTHER_NAMES):
        yield InvalidCommandError(f"`{shell}` is not a shell, like bash, sh or zsh", "shell")
    yield from text_errors("shell", shell)


def env_errors(env: Mapping[str, str]) -> Iterator[ValidationError]:
    """Refuse names and values that the environment of a process can't hold."""
    for name, value in env.items():
        if not name:
            yield InvalidCommandError("env has a variable without a name", "env")
        elif "=" in name:
            yield InvalidCommandError(f"env name `{name}` contains `=`", f"env[{name}]")
        elif "\0" in name:
            yield InvalidCommandError(f"env name {name!r} contains a NUL byte", "env")
        elif not is_valid_text(name):
            yield from text_errors("a name in env", name)
        yield from text_errors(f"env[{name}]", value)
        size = argument_limits.variable_size(name, value)
        yield from _length_errors(f"env[{name}]", size, _NAME_A_FILE)


def env_from_errors(names: Iterable[str]) -> Iterator[ValidationError]:
    """Refuse names of blocks that aren't `block-type/document-name`."""
    for index, name in enumerate(names):
        block_type, slash, document = name.partition("/")
        if not (block_type.strip() and slash and document.strip()) or "/" in document:
            field = f"env_from[{index}]"
            yield ValidationError(
                f"{field} must name a block, like `command-environment/deploy`, not `{name}`", field
            )
        elif not is_valid_text(name):
            field = f"env_from[{index}]"
            yield ValidationError(f"{field} can't be written as UTF-8: {quoted_bytes(name)}", field)


def timeout_errors(timeout_ms: int | None) -> Iterator[ValidationError]:
    """Refuse a timeout that is over before it begins."""
    if timeout_ms is not None and timeout_ms <= 0:
        yield ValidationError(f"timeout_ms must be above 0, not {timeout_ms}", "timeout_ms")
