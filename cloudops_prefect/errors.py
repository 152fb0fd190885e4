"""Every exception that the package raises on purpose."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Self

from cloudops_prefect.unicode_text import valid_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from cloudops_prefect.mistakes import Mistake
    from cloudops_prefect.models import ExecutionResult, ExecutionStatus, PlanExecutionResult


def _restore(cls: type[ExecutionError], message: str) -> ExecutionError:
    error = cls.__new__(cls)
    # OSError, and so TimeoutError, leaves `args` to `__init__` in a class that has its own.
    error.args = (message,)
    return error


class ExecutionError(Exception):
    """Anything that went wrong with an execution.

    `str(error)` is the whole message, as text that UTF-8 can write. Every subclass can be pickled,
    whatever its `__init__` takes, and keeps its attributes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(valid_text(message))

    def __reduce__(
        self,
    ) -> tuple[Callable[..., ExecutionError], tuple[Any, ...], Mapping[str, Any]]:
        return _restore, (type(self), str(self)), self.__dict__


class _ExecutionEndedError(ExecutionError):
    """An execution that came to a bad end, with its result where one is known."""

    result: ExecutionResult | PlanExecutionResult | None = None


class ValidationError(ExecutionError):
    """Validation error: the request, plan or file can't be run as it is written.

    Attributes:
        detail: The message without its first words.
        field: The field at fault, like `args[0]`, where there is one.
        hint: The way out, where there is one.
        mistakes: What is wrong in a file, if the error is about one.
    """

    _first_words: ClassVar[str] = "Validation error"
    hint: ClassVar[str | None] = None
    mistakes: tuple[Mistake, ...] = ()

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(f"{self._first_words}: {detail}")
        self.detail = detail
        self.field = field

    def located(self, where: str) -> Self:
        """Return a copy of this error whose message also tells where the mistake is."""
        error = type(self).__new__(type(self))
        error.__dict__.update(self.__dict__)
        error.args = (f"{self} ({where})",)
        return error


class InvalidCommandError(ValidationError):
    """Invalid command format: what is there can't be a command."""

    _first_words = "Invalid command format"


class ScriptNotFoundError(ValidationError):
    """Script file not found."""

    _first_words = "Script file not found"

    def __init__(self, path: str | os.PathLike[str], hint: str | None = None) -> None:
        super().__init__("; ".join(filter(None, (os.fspath(path), hint))), "path")
        self.path = os.fspath(path)


class TimeoutTooLargeError(ValidationError):
    """Timeout exceeds the maximum that the configuration allows; both in milliseconds."""

    _first_words = "Timeout exceeds maximum allowed"
    hint = "CLOUDOPS_MAX_TIMEOUT_MS raises that"

    def __init__(self, timeout_ms: int, maximum_ms: int) -> None:
        super().__init__(f"{timeout_ms}ms > {maximum_ms}ms", "timeout_ms")
        self.timeout_ms = timeout_ms
        self.maximum_ms = maximum_ms


class InvalidWorkingDirError(ValidationError):
    """Invalid working directory: it doesn't exist, isn't a directory or can't be entered."""

    _first_words = "Invalid working directory"

    def __init__(self, detail: str | os.PathLike[str]) -> None:
        super().__init__(os.fspath(detail), "working_dir")


class MissingFieldError(ValidationError):
    """Missing required field: absent or empty."""

    _first_words = "Missing required field"

    def __init__(self, field: str) -> None:
        super().__init__(field, field)


class InvalidPlanError(ValidationError):
    """Invalid execution plan: the plan is refused as a whole."""

    _first_words = "Invalid execution plan"


class ExecutionNotFoundError(ExecutionError):
    """Execution not found: the Prefect API knows no execution of this id."""

    def __init__(self, execution_id: UUID | str) -> None:
        super().__init__(f"Execution not found: {execution_id}")
        self.execution_id = execution_id


class ExecutionTimeoutError(_ExecutionEndedError, TimeoutError):
    """Execution timeout; also a built-in `TimeoutError`."""

    def __init__(
        self, timeout_ms: int, result: ExecutionResult | PlanExecutionResult | None = None
    ) -> None:
        super().__init__(f"Execution timeout after {timeout_ms}ms")
        self.timeout_ms = timeout_ms
        self.result = result


class ExecutionCancelledError(_ExecutionEndedError):
    """Execution cancelled."""

    def __init__(
        self,
        reason: str | None = None,
        result: ExecutionResult | PlanExecutionResult | None = None,
    ) -> None:
        super().__init__(f"Execution cancelled: {reason}" if reason else "Execution cancelled")
        self.reason = reason
        self.result = result


class CommandFailedError(_ExecutionEndedError):
    """Command failed with an exit code other than 0; -N if signal N ended it."""

    def __init__(
        self,
        exit_code: int,
        detail: str | None = None,
        result: ExecutionResult | PlanExecutionResult | None = None,
    ) -> None:
        message = f"Command failed with exit code {exit_code}"
        super().__init__(f"{message}: {detail}" if detail else message)
        self.exit_code = exit_code
        self.detail = detail
        self.result = result


class SpawnFailedError(_ExecutionEndedError):
    """Process spawn failed: the program couldn't be started."""

    def __init__(
        self, detail: str, result: ExecutionResult | PlanExecutionResult | None = None
    ) -> None:
        super().__init__(f"Process spawn failed: {detail}")
        self.detail = detail
        self.result = result


class ExecutionIOError(ExecutionError):
    """IO error: a log or output file can't be read or written."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"IO error: {detail}")


class SerializationError(ExecutionError):
    """Serialization error: a value can't be written as JSON or read back."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"Serialization error: {detail}")


class ExecutionNotCompletedError(ExecutionError):
    """Execution not completed: its result was asked for too early."""

    def __init__(self, execution_id: UUID | str, status: ExecutionStatus | None = None) -> None:
        message = f"Execution not completed: {execution_id}"
        super().__init__(f"{message} is {status}" if status else message)
        self.execution_id = execution_id
        self.status = status


class ExecutionNotRunningError(ExecutionError):
    """Execution not running: it has ended, so that it can't be cancelled."""

    def __init__(self, execution_id: UUID | str, status: ExecutionStatus | None = None) -> None:
        message = f"Execution not running: {execution_id}"
        super().__init__(f"{message} is {status}" if status else message)
        self.execution_id = execution_id
        self.status = status
