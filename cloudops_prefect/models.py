"""The types of requests, plans, results and events; all frozen, all with a JSON form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID, uuid4

from pydantic import BeforeValidator, Field

from cloudops_prefect import argument_limits, shapes
from cloudops_prefect.command_types import (
    AwsCliCommand,
    Command,
    ExecCommand,
    ScriptCommand,
    ShellCommand,
)
from cloudops_prefect.errors import (
    InvalidWorkingDirError,
    TimeoutTooLargeError,
    ValidationError,
)
from cloudops_prefect.frozen import Count, Flag, FrozenModel, Text, as_any_of
from cloudops_prefect.result_types import (
    CancelledEvent,
    CommandExecutionId,
    CompletedEvent,
    ExecutionEvent,
    ExecutionResult,
    ExecutionStats,
    ExecutionStatus,
    ExecutionSummary,
    FailedEvent,
    PlanExecutionId,
    PlanExecutionResult,
    ProgressEvent,
    StartedEvent,
    StderrEvent,
    StdoutEvent,
    StreamedEvent,
    UnfinishedLine,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.config import JsonDict

    from cloudops_prefect.config import ExecutionConfig

__all__ = [
    "ScriptCommand",
    "ExecCommand",
    "ShellCommand",
    "AwsCliCommand",
    "Command",
    "ExecutionMetadata",
    "ExecutionRequest",
    "SerialStrategy",
    "ParallelStrategy",
    "DependencyGraphStrategy",
    "ExecutionStrategy",
    "ExecutionPlan",
    "CommandExecutionId",
    "PlanExecutionId",
    "ExecutionStatus",
    "ExecutionResult",
    "ExecutionStats",
    "PlanExecutionResult",
    "ExecutionSummary",
    "StartedEvent",
    "StdoutEvent",
    "StderrEvent",
    "CompletedEvent",
    "FailedEvent",
    "CancelledEvent",
    "ProgressEvent",
    "ExecutionEvent",
    "UnfinishedLine",
    "StreamedEvent",
]

_DISPLAY_WIDTH = 80
_ID = "To find its executions by; best left out, then one is made"
# The Prefect UI orders a form by `position`, which is 0 where there is none.
_LAST: JsonDict = {"position": 1}


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("a path can't be empty")
    return value


# Path("") is the current directory: once it is a Path, nobody can tell that it was left empty.
OptionalPath = Annotated[Path | None, BeforeValidator(_not_empty)]


class ExecutionMetadata(FrozenModel):
    """Where a request or plan comes from; tags or labels of the Prefect run."""

    source: Text | None = None
    conversation_id: Text | None = None
    tags: dict[Text, Text] = Field(
        default_factory=dict[Text, Text], description='As JSON, like {"team": "ops"}'
    )


class ExecutionRequest(FrozenModel):
    """One command to run, and how."""

    id: UUID = Field(default_factory=uuid4, description=_ID, json_schema_extra=_LAST)
    name: Text | None = Field(default=None, description="What people see in place of the command")
    command: Command
    env: dict[str, str] = Field(
        default_factory=dict[str, str],
        description='Variables that win over those of the environment; as JSON, like {"A": "1"}',
    )
    env_from: list[str] = Field(
        default_factory=list[str],
        description="Blocks with variables and secrets, like command-environment/deploy, that are "
        "read where the command runs",
    )
    working_dir: OptionalPath = Field(
        default=None,
        description="Where the command runs; if absent, the directory of the process that runs it",
    )
    timeout_ms: Count | None = Field(
        default=None, description="Milliseconds; the configuration's default if absent"
    )
    keep_background: Flag = Field(
        default=False,
        description="Leave processes that the command puts into the background running until the "
        "run ends or is cancelled",
    )
    output_log_path: OptionalPath = Field(
        default=None,
        description="File that gets a second copy of what the command prints; a relative path "
        "starts in the directory of the process that runs the command, not in `working_dir`",
    )
    metadata: ExecutionMetadata = Field(title="Metadata", default_factory=ExecutionMetadata)

    def validate(self, config: ExecutionConfig | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (pydantic's is deprecated)
        """Check everything that can be told without looking at the machine.

        Args:
            config: Tells the longest timeout; without it any is long enough.

        Raises:
            MissingFieldError: A required field is empty.
            InvalidCommandError: A value can't be part of a command or its environment.
            TimeoutTooLargeError: The timeout is above `config.max_timeout_ms`.
            ValidationError: The timeout is zero or negative, or a block's name isn't one.
        """
        for error in self.shape_errors():
            raise error
        if config is None:
            return
        timeout_ms = self.effective_timeout_ms(config)
        if timeout_ms > config.max_timeout_ms:
            raise TimeoutTooLargeError(timeout_ms, config.max_timeout_ms)

    def shape_errors(self) -> Iterator[ValidationError]:
        """Yield everything for which `validate` would refuse the request under any configuration.

        The first ones are the command's own.
        """
        yield from self.command.shape_errors()
        yield from shapes.text_errors("name", self.name or "")
        yield from shapes.env_errors(self.env)
        yield from shapes.total_size_errors(self._args, self.env)
        yield from shapes.env_from_errors(self.env_from)
        for error in shapes.path_errors("working_dir", self.working_dir or Path()):
            yield InvalidWorkingDirError(error.detail)
        yield from shapes.timeout_errors(self.timeout_ms)
        yield from shapes.path_errors("output_log_path", self.output_log_path or Path())

    @property
    def argument_bytes(self) -> int:
        """How many bytes its arguments and variables take in a program's memory."""
        return argument_limits.total_size(self._args, self.env)

    @property
    def _args(self) -> Sequence[str]:
        # Shell text need not be an argument.
        return getattr(self.command, "args", ())

    def effective_timeout_ms(self, config: ExecutionConfig) -> int:
        """Return the timeout in milliseconds: the request's own or the configuration's default."""
        return config.default_timeout_ms if self.timeout_ms is None else self.timeout_ms

    @property
    def display_name(self) -> str:
        """The name, or the command as one line; at most 80 printable characters."""
        return one_line(self.display_text)

    @property
    def display_text(self) -> str:
        """What `display_name` is made of, at its full length."""
        name = self.name or ""
        return name if name.strip() else self.command.display_line


def one_line(text: str) -> str:
    """Return a text on one line, as at most 80 printable characters."""
    words = " ".join(text.split())
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in words)
    return line if len(line) <= _DISPLAY_WIDTH else line[: _DISPLAY_WIDTH - 1] + "…"


class SerialStrategy(FrozenModel):
    """One command after the other, in the plan's order."""

    type: Literal["serial"] = "serial"
    stop_on_error: Flag = Field(
        default=True, description="Leave out what comes after a command that failed"
    )


class ParallelStrategy(FrozenModel):
    """All commands at once, or as many as `max_concurrency` allows."""

    type: Literal["parallel"] = "parallel"
    max_concurrency: Count | None = Field(default=None, json_schema_extra={"minimum": 1})


class DependencyGraphStrategy(FrozenModel):
    """Each command once what it waits for has completed."""

    type: Literal["dependency_graph"] = "dependency_graph"
    dependencies: dict[int, list[Count]] = Field(
        default_factory=dict[int, list[Count]],
        description="Index of a command to the indices of those it waits for, from 0",
    )


ExecutionStrategy = Annotated[
    SerialStrategy | ParallelStrategy | DependencyGraphStrategy,
    Field(discriminator="type", json_schema_extra=as_any_of),
]


class ExecutionPlan(FrozenModel):
    """Several commands and the order in which they run."""

    id: UUID = Field(default_factory=uuid4, description=_ID, json_schema_extra=_LAST)
    description: Text = Field(default="", description="What people see as the name of its runs")
    strategy: ExecutionStrategy = Field(default_factory=SerialStrategy)
    commands: list[ExecutionRequest]
    env_from: list[str] = Field(
        default_factory=list[str], description="Blocks whose variables every command gets"
    )
    metadata: ExecutionMetadata = Field(title="Metadata", default_factory=ExecutionMetadata)

    def validate(self, config: ExecutionConfig | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (pydantic's is deprecated)
        """Check every command and then the graph that they make.

        Args:
            config: As for `ExecutionRequest.validate`.

        Raises:
            InvalidPlanError: There are no commands, an index doesn't exist, a command waits for
                itself, there is a cycle, or `max_concurrency` is below 1.
            ValidationError: As `ExecutionRequest.validate`, with the command's index and name.
        """
        from cloudops_prefect.graph import check_graph

        for error in shapes.env_from_errors(self.env_from):
            raise error
        for index, request in enumerate(self.commands):
            try:
                request.validate(config)
            except ValidationError as error:
                # No command line: cut short, it may have half a secret that nobody finds in it.
                where = (f"commands[{index}]", one_line(request.name or ""))
                raise error.located(", ".join(filter(None, where))) from None
        check_graph(self)


def require(wanted: type[ExecutionRequest | ExecutionPlan], given: object) -> None:
    """Refuse what isn't a request or isn't a plan, and say how to make one of it.

    Raises:
        TypeError: It isn't a `wanted`.
    """
    if isinstance(given, wanted):
        return
    complaint = f"an {wanted.__name__} is needed, not {type(given).__name__}"
    if isinstance(given, (ScriptCommand, ExecCommand, ShellCommand, AwsCliCommand)):
        complaint += "; a command becomes one by ExecutionRequest(command=...)"
    elif isinstance(given, ExecutionRequest):
        complaint += "; requests become one by ExecutionPlan(commands=[...])"
    elif isinstance(given, dict):
        complaint += f"; a dict becomes one by {wanted.__name__}.model_validate(...)"
    raise TypeError(complaint)
