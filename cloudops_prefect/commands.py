"""What each kind of command is to the operating system: arguments and environment."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloudops_prefect.argument_limits import size_complaint
from cloudops_prefect.errors import (
    InvalidCommandError,
    InvalidWorkingDirError,
    ScriptNotFoundError,
    SpawnFailedError,
)
from cloudops_prefect.models import AwsCliCommand, ExecCommand, ScriptCommand, ShellCommand
from cloudops_prefect.shell_text import HAS_MEMORY_FILES, can_be_long, text_in_memory

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from cloudops_prefect.models import Command

_INTERPRETERS = {
    ".awk": ("awk", "-f"),
    ".bash": ("bash",),
    ".cjs": ("node",),
    ".csh": ("csh",),
    ".fish": ("fish",),
    ".jl": ("julia",),
    ".js": ("node",),
    ".ksh": ("ksh",),
    ".lua": ("lua",),
    ".mjs": ("node",),
    ".php": ("php",),
    ".pl": ("perl",),
    ".ps1": ("pwsh", "-File"),
    ".py": ("python3",),
    ".r": ("Rscript",),
    ".rb": ("ruby",),
    ".sh": ("bash",),
    ".tcl": ("tclsh",),
    ".ts": ("node",),
    ".zsh": ("zsh",),
}
_DEFAULT_INTERPRETER = ("bash",)

# Linux reads no more of a file to find its shebang.
_SHEBANG_BYTES = 256

# Version 1 of the AWS CLI knows only the AWS_DEFAULT_… form of each, and takes AWS_DEFAULT_PROFILE
# before AWS_PROFILE where both are set: all names of one setting have to say the same.
_PROFILE = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
_REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")
_OUTPUT = ("AWS_OUTPUT", "AWS_DEFAULT_OUTPUT")

_DIRECTORY_VARIABLES = ("PWD", "OLDPWD")


@dataclass(frozen=True, slots=True)
class Invocation:
    """What to start.

    Attributes:
        argv: The program, by name or path, and its arguments.
        env: What the kind of command has to say about the environment. What the request says of
            the same things has been taken into account, so that this goes over the request's.
        has_shell_text: Whether the last argument is text that the program, a shell, is to run.
    """

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict[str, str])
    has_shell_text: bool = False


def invocation(
    command: Command, request_env: Mapping[str, str], working_dir: Path | None = None
) -> Invocation:
    """Return what to start for `command`. Reads nothing but the first line of a script.

    Args:
        command: One of the four kinds.
        request_env: What the request adds to the environment.
        working_dir: Where the command will run; a script's relative path starts there. None: the
            directory of this process.

    Raises:
        ScriptNotFoundError: The script is not there, or no file.
        SpawnFailedError: The script can't be read.
        InvalidCommandError: The interpreter's quotes don't match.
    """
    match command:
        case ScriptCommand():
            return Invocation(_script_argv(command, working_dir))
        case ExecCommand():
            return Invocation((command.program, *command.args))
        case ShellCommand():
            return Invocation((command.shell, "-c", command.command), has_shell_text=True)
        case AwsCliCommand():
            return _aws(command, request_env)


def complete_env(
    call: Invocation,
    request_env: Mapping[str, str],
    working_dir: Path | None = None,
    base: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the whole environment of a command.

    `PWD` names the command's directory. `OLDPWD` is left out: it names a directory that this
    process, not the command, was in before. The request's environment may set both.

    Args:
        call: What to start.
        request_env: What the request adds to the environment.
        working_dir: Where the command will run. None: the directory of this process.
        base: What the environment is built on. None: the environment of this process.
    """
    env = dict(os.environ if base is None else base)
    for name in _DIRECTORY_VARIABLES:
        env.pop(name, None)
    return {**env, **_pwd(working_dir or Path()), **request_env, **call.env}


@contextmanager
def passable_argv(call: Invocation, env: Mapping[str, str]) -> Generator[tuple[str, ...]]:
    """Give the arguments to start a program with; a shell may get its text in another way.

    They are valid as long as the context is open.

    Args:
        call: What to start.
        env: The whole environment of the command.

    Raises:
        InvalidCommandError: The system can't pass arguments or environment; it says the limit.
        SpawnFailedError: There is no room for the shell's text.
    """
    check_size(call, env)
    if size_complaint(call.argv, env) is None:
        yield call.argv
        return
    shell, *options, text = call.argv
    with ExitStack() as files:
        try:
            loader = files.enter_context(text_in_memory(shell, text))
        except OSError as error:
            raise SpawnFailedError(f"shell text of {len(text)} characters: {error}") from error
        yield (shell, *options, loader)


def check_size(call: Invocation, env: Mapping[str, str]) -> None:
    """Refuse arguments and variables that this machine can't pass to a program.

    Raises:
        InvalidCommandError: It says what is too long, and the limit.
    """
    can_be_short = call.has_shell_text and can_be_long(call.argv[0]) and HAS_MEMORY_FILES
    argv = call.argv[:-1] if can_be_short else call.argv
    if (complaint := size_complaint(argv, env)) is not None:
        raise InvalidCommandError(complaint)


def _pwd(directory: Path) -> dict[str, str]:
    # make and git, for example, take PWD for the current directory.
    try:
        return {"PWD": str(_logical_path(directory))}
    except OSError:
        # The directory was removed: no path leads to it.
        return {}


def _logical_path(directory: Path) -> Path:
    """Return the absolute path of a directory, with its symbolic links, as `cd` keeps it."""
    here = Path(os.environ.get("PWD", ""))
    if not directory.is_absolute():
        in_place = here.is_absolute() and _is_same_file(here, Path())
        directory = (here if in_place else Path.cwd()) / directory
    # normpath takes `link/..` for the link's own directory, the system for the target's parent.
    path = Path(os.path.normpath(directory))
    return path if _is_same_file(path, directory) else directory.resolve()


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def check_working_dir(path: Path) -> None:
    """Refuse a directory that nothing can run in.

    Raises:
        InvalidWorkingDirError: It doesn't exist, is no directory, or may not be entered.
    """
    if (complaint := _complaint_of(path)) is not None:
        raise InvalidWorkingDirError(complaint)


def _complaint_of(directory: Path) -> str | None:
    try:
        if not directory.exists():
            return f"{directory} does not exist"
        if not directory.is_dir():
            return f"{directory} is not a directory"
    except OSError as error:
        # What is above it may be closed to us.
        return f"{directory}: {error.strerror}"
    return None if os.access(directory, os.X_OK) else f"{directory}: permission denied"


def _script_argv(command: ScriptCommand, working_dir: Path | None) -> tuple[str, ...]:
    # Absolute: a name that begins with a dash would be an option to the interpreter, and bash looks
    # for one without a slash in PATH.
    path = ((working_dir or Path()) / command.path).absolute()
    try:
        first_line = _first_line(path)
    except ScriptNotFoundError as error:
        raise ScriptNotFoundError(path, _hint_for_absent(path, command.args)) from error
    if command.interpreter is not None:
        interpreter = _split_interpreter(command.interpreter, working_dir or Path())
    else:
        by_extension = _INTERPRETERS.get(path.suffix.lower(), _DEFAULT_INTERPRETER)
        interpreter = _shebang(first_line) or by_extension
    return (*interpreter, str(path), *command.args)


def _hint_for_absent(path: Path, args: Sequence[str]) -> str | None:
    """Return what to write if a path was split at its spaces, or is a line of a shell."""
    for count in range(1, len(args) + 1):
        whole = Path(" ".join([str(path), *args[:count]]))
        if whole.is_file():
            return f'there is {whole}: write spaces in a list, like `script: ["{whole.name}"]`'
    return "a line of a shell goes below `run: |`" if " " in path.name else None


def _first_line(path: Path) -> bytes:
    try:
        if path.is_file():
            with path.open("rb") as script:
                return script.readline(_SHEBANG_BYTES)
    except OSError as error:
        raise SpawnFailedError(f"script {path}: {error.strerror}") from error
    raise ScriptNotFoundError(path)


def _shebang(first_line: bytes) -> tuple[str, ...]:
    """Split a `#!` line as the kernel does: all that follows the interpreter is one argument."""
    if not first_line.startswith(b"#!"):
        return ()
    return tuple(os.fsdecode(part).strip() for part in first_line[2:].strip().split(maxsplit=1))


def _split_interpreter(interpreter: str, working_dir: Path) -> tuple[str, ...]:
    if (working_dir / interpreter).is_file():
        return (interpreter,)
    try:
        return tuple(shlex.split(interpreter))
    except ValueError as error:
        raise InvalidCommandError(f"interpreter `{interpreter}`: {error}") from error


def _aws(command: AwsCliCommand, request_env: Mapping[str, str]) -> Invocation:
    args = command.args
    env = {"AWS_PAGER": ""}
    env |= _setting(_PROFILE, command.profile, request_env)
    env |= _setting(_REGION, command.region, request_env)
    if not any(arg == "--output" or arg.startswith("--output=") for arg in args):
        env |= _setting(_OUTPUT, "json", request_env)
    program = _aws_program(request_env)
    return Invocation((program, command.service, command.operation, *args), env)


def _setting(
    names: tuple[str, ...], value: str | None, request_env: Mapping[str, str]
) -> dict[str, str]:
    """Give all names of one setting the request's value, else the command's; none if it has none.

    A name that the request sets keeps what the request says.
    """
    told = [request_env[name] for name in names if name in request_env]
    value = told[0] if told else value
    return {} if value is None else {name: request_env.get(name, value) for name in names}


def _aws_program(request_env: Mapping[str, str]) -> str:
    # The AWS CLI of the `aws` extra is beside our interpreter, which need not be in PATH.
    if shutil.which("aws", path=request_env.get("PATH")) is None:
        beside = Path(sys.executable).with_name("aws")
        if beside.is_file():
            return str(beside)
    return "aws"
