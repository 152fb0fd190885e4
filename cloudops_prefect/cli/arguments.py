"""What people type, turned into requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import hexdigits
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from cloudops_prefect.errors import ValidationError

if TYPE_CHECKING:
    from cloudops_prefect.models import Command, ExecutionRequest

Json = Annotated[bool, Parameter(negative="", help="Print JSON.")]
ResultJson = Annotated[Json, Parameter(help="Print the result as JSON in place of the output.")]
Status = Literal["pending", "running", "completed", "failed", "cancelled", "timeout"]
Quiet = Annotated[bool, Parameter(name=("--quiet", "-q"), negative="")]
Plan = Annotated[Path, Parameter(help="A YAML or JSON file; - is standard input.")]

LAST = "last"
"""The newest run, where an id is taken."""
_ID_DIGITS = 32
_TAKES_THE_REST = {"exec", "aws"}
_TAKES_A_PLAN = {"run", "validate", "graph", "deploy"}
_WITHOUT_VALUE = {"--json", "--quiet", "-q", "--help", "-h", "--dry-run", "--paused"}


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

    json: ResultJson = False

    quiet: Quiet = False
    """Print the command's own output only, and why it did not start or was stopped."""

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


@Parameter(name="*")
@dataclass(frozen=True)
class ShownOptions:
    """How a run is shown."""

    output: Literal["live", "interleaved", "grouped"] | None = None
    """live (in a terminal), lines as they come, or each command's when it has ended."""

    json: ResultJson = False

    quiet: Quiet = False
    """Print the summary only."""


@Parameter(name="*")
@dataclass(frozen=True)
class ListOptions:
    """Which executions are listed."""

    status: Status | None = None
    """Only those that stand there."""

    tag: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """KEY=VALUE, only those that have it; can be repeated."""

    since: str | None = None
    """Only those from then on: how long ago, like 2h or 7d, or a date."""

    search: str | None = None
    """Only those with this in their name: a plan's description, a command's name or text. Commands
    of a plan are searched once they have started, or will not start any more."""

    limit: int = 20
    """How many at most; 20 if absent."""

    page: int = 1
    """Which page of that many."""

    def filters(self) -> dict[str, Any]:
        """The arguments for `read_list`.

        Raises:
            ValidationError: A value is not written as it should be.
        """
        from cloudops_prefect.models import ExecutionStatus

        if self.limit < 1 or self.page < 1:
            raise ValidationError("--limit and --page begin at 1")
        return {
            "limit": self.limit,
            "offset": (self.page - 1) * self.limit,
            "status": None if self.status is None else ExecutionStatus(self.status),
            "tags": [_run_tag(text) for text in self.tag],
            "since": None if self.since is None else _moment("--since", self.since),
            "text": self.search,
        }


def stdin_named(tokens: Sequence[str]) -> list[str]:
    """Gives `-` in the place of a plan the name of the file that it stands for."""
    if not tokens or tokens[0] not in _TAKES_A_PLAN:
        return list(tokens)
    return [
        "/dev/stdin" if word == "-" and not _has_value(before) else word
        for before, word in zip(["", *tokens], tokens, strict=False)
    ]


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
        position += 2 if _has_value(option) else 1
    return [*tokens[:position], "--", *tokens[position:]]


def _has_value(word: str) -> bool:
    """Whether the next word is the value of this one."""
    return word.startswith("-") and word not in _WITHOUT_VALUE and "=" not in word


def id_text(text: str) -> str:
    """Check that a text names an execution; return it in lower case.

    Raises:
        ValidationError: It does not.
    """
    if not is_id(text):
        raise ValidationError(
            f"{text!r} is not an execution id; `cloudops list` shows them, and `{LAST}` is the "
            "newest run"
        )
    return text.lower()


def is_id(text: str) -> bool:
    """Return whether a text names an execution: an id, the beginning of one, or `last`."""
    digits = text.replace("-", "")
    is_hex = 0 < len(digits) <= _ID_DIGITS and set(digits) <= set(hexdigits)
    return is_hex or text.lower() == LAST


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValidationError(f"{option} wants NAME=VALUE, not {text!r}")
        pairs[name] = value
    return pairs


def _run_tag(text: str) -> str:
    """KEY=VALUE as Prefect has it among the tags of a run."""
    key, _, value = text.partition("=")
    return f"{key}:{value}" if value else key


def _milliseconds(text: str) -> int:
    return round(duration("--timeout", text) / timedelta(milliseconds=1))


def duration(option: str, text: str) -> timedelta:
    """Reads a duration as people write it, like 30s, 5m or 2d; none below zero.

    Raises:
        ValidationError: It is not written so.
    """
    if (read := _duration(text)) is None:
        raise ValidationError(f"{option} wants a duration like 30s, 5m or 2d, not {text!r}")
    return read


def _duration(text: str) -> timedelta | None:
    from pydantic import TypeAdapter
    from pydantic import ValidationError as WrongTypesError

    from cloudops_prefect.durations import Duration

    try:
        read = TypeAdapter(Duration).validate_python(text)
    except WrongTypesError:
        return None
    return read if read >= timedelta() else None


def _moment(option: str, text: str) -> datetime:
    """Reads a date, or how long ago it was."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        ago = _duration(text)
    if ago is None:
        raise ValidationError(
            f"{option} wants how long ago, like 2h or 7d, or a date like 2026-01-31, not {text!r}"
        )
    return datetime.now(UTC) - ago
