"""What people type, turned into requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from string import hexdigits
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cloudops_prefect.errors import ValidationError

if TYPE_CHECKING:
    from cloudops_prefect.models import Command, ExecutionRequest

Json = Annotated[bool, Parameter(negative="", help="Print JSON.")]
Quiet = Annotated[bool, Parameter(name=("--quiet", "-q"), negative="")]

_ID_DIGITS = 32
_TAKES_THE_REST = {"exec", "aws"}
_WITHOUT_VALUE = {"--json", "--quiet", "-q", "--help", "-h"}


@Parameter(name="*")
@dataclass(frozen=True)
class CommandOptions:
    """How a single command is run."""

    timeout: str | None = None
    """How long it may take, like 30s, 5m or 1h 30m."""

    cwd: Path | None = None
    """The directory that it runs in."""

    env: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """NAME=VALUE, added to its environment; can be repeated."""

    env_from: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """A block with variables and secrets, like command-environment/deploy; can be repeated."""

    name: str | None = None
    """What it is called in lists and in the UI."""

    tag: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """KEY=VALUE, to find it again; can be repeated."""

    log_copy: Path | None = None
    """A file that gets a second copy of what it prints."""

    json: Json = False
    """Print the result as JSON in place of the output."""

    quiet: Quiet = False
    """Print the command's own output only."""

    def request(self, command: "Command") -> "ExecutionRequest":
        """The request that these options make of a command.

        Raises:
            ValidationError: A value is not written as it should be.
        """
        from cloudops_prefect.models import ExecutionMetadata, ExecutionRequest

        return ExecutionRequest(
            command=command,
            name=self.name,
            env=_pairs("--env", self.env),
            env_from=list(self.env_from),
            working_dir=self.cwd,
            timeout_ms=None if self.timeout is None else _milliseconds(self.timeout),
            output_log_path=self.log_copy,
            metadata=ExecutionMetadata(source="cloudops", tags=_pairs("--tag", self.tag)),
        )


def verbatim(tokens: Sequence[str]) -> list[str]:
    """Marks where the options of `exec` and `aws` end: what follows belongs to the program.

    As with `docker run` and `env`, our options stand before the program. `--name` is an option of
    ours and of many AWS operations, so one that stands later is theirs.
    """
    if not tokens or tokens[0] not in _TAKES_THE_REST:
        return list(tokens)
    position = 1
    while position < len(tokens) and tokens[position].startswith("-"):
        option = tokens[position]
        if option == "--":
            return list(tokens)
        position += 1 if option in _WITHOUT_VALUE or "=" in option else 2
    return [*tokens[:position], "--", *tokens[position:]]


def id_text(text: str) -> str:
    """Checks that a text is an id or the beginning of one; returns it in lower case.

    Raises:
        ValidationError: It is not.
    """
    wanted = text.lower()
    digits = wanted.replace("-", "")
    if not digits or len(digits) > _ID_DIGITS or set(digits) - set(hexdigits):
        raise ValidationError(f"{text!r} is not an execution id; `cloudops list` shows them")
    return wanted


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValidationError(f"{option} wants NAME=VALUE, not {text!r}")
        pairs[name] = value
    return pairs


def _milliseconds(text: str) -> int:
    from pydantic import TypeAdapter
    from pydantic import ValidationError as WrongTypesError

    from cloudops_prefect.durations import Duration

    try:
        duration = TypeAdapter(Duration).validate_python(text)
    except WrongTypesError:
        raise ValidationError(f"--timeout wants a duration like 30s or 5m, not {text!r}") from None
    return round(duration / timedelta(milliseconds=1))
