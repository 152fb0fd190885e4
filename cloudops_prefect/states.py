"""Prefect states, and the statuses, results and errors that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.client.schemas.objects import StateType
from prefect.states import Cancelled, Completed, Failed

from cloudops_prefect.errors import (
    CommandFailedError,
    ExecutionCancelledError,
    ExecutionError,
    ExecutionTimeoutError,
)
from cloudops_prefect.models import ExecutionResult, ExecutionStatus, PlanExecutionResult
from cloudops_prefect.unicode_text import valid_text

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

TIMED_OUT = "TimedOut"
NOT_STARTED = -1

_STATUSES = {
    StateType.SCHEDULED: ExecutionStatus.PENDING,
    StateType.PENDING: ExecutionStatus.PENDING,
    StateType.PAUSED: ExecutionStatus.PENDING,
    StateType.RUNNING: ExecutionStatus.RUNNING,
    # Something of the execution may still be alive until Prefect says Cancelled.
    StateType.CANCELLING: ExecutionStatus.RUNNING,
    StateType.COMPLETED: ExecutionStatus.COMPLETED,
    StateType.FAILED: ExecutionStatus.FAILED,
    StateType.CRASHED: ExecutionStatus.FAILED,
    StateType.CANCELLED: ExecutionStatus.CANCELLED,
}


def status_of(state: State[Any] | None) -> ExecutionStatus:
    """Returns the status that a run's Prefect state stands for; a run without one is pending."""
    if state is None:
        return ExecutionStatus.PENDING
    if state.type is StateType.FAILED and state.name == TIMED_OUT:
        return ExecutionStatus.TIMEOUT
    return _STATUSES[state.type]


def cancelled_state() -> State[Any]:
    """Returns the final state of what was cancelled and has no result."""
    return Cancelled(message=str(ExecutionCancelledError()))


def state_of(result: ExecutionResult) -> State[Any]:
    """Returns the final state of a command's task run, its message being the result's error.

    Without data: Prefect would search it for what the task runs downstream depend on.
    """
    return _final_state(result.status, result.error, None)


def command_state_of(result: ExecutionResult, timeout_ms: int, note: str = "") -> State[Any]:
    """Returns the final state of a single command's flow run; its data is what a caller gets."""
    data = error_of(result, timeout_ms) or result
    return _final_state(result.status, _joined(result.error, note), data)


def unforeseen_state(reason: str) -> State[Any]:
    """Return the final state of a run that something unforeseen has ended."""
    return Failed(message=_stored(reason), data=ExecutionError(reason))


def plan_state_of(
    result: PlanExecutionResult, *, awaited: bool = True, note: str = ""
) -> State[Any]:
    """Returns the final state of a plan's flow run; its message says how its commands ended.

    Args:
        result: How the plan ended.
        awaited: Whether somebody takes what the flow returns. Prefect searches that for states, of
            a large plan for a second.
        note: What the message says besides.
    """
    data: object = result if awaited else None
    if result.status is ExecutionStatus.CANCELLED:
        data = ExecutionCancelledError(result=result)
    elif result.status is not ExecutionStatus.COMPLETED:
        code = result.as_result().exit_code
        data = CommandFailedError(-1 if code is None else code, plan_message(result), result=result)
    return _final_state(result.status, _joined(plan_message(result), note), data)


def plan_message(result: PlanExecutionResult) -> str:
    """Says how a plan's commands ended: ``2 of 5 commands completed, 1 failed, 2 cancelled``."""
    stats = result.stats
    counts = {"failed": stats.failed, "timed out": stats.timeout, "cancelled": stats.cancelled}
    ended = [f"{count} {how}" for how, count in counts.items() if count]
    return ", ".join([f"{stats.completed} of {stats.total} commands completed", *ended])


def error_of(result: ExecutionResult, timeout_ms: int) -> ExecutionError | None:
    """Returns the exception that a command's result stands for, None when it completed.

    Args:
        result: How the command ended.
        timeout_ms: How long it may have taken.
    """
    match result.status:
        case ExecutionStatus.COMPLETED:
            return None
        case ExecutionStatus.TIMEOUT:
            return ExecutionTimeoutError(timeout_ms, result=result)
        case ExecutionStatus.CANCELLED:
            return ExecutionCancelledError(result=result)
        case _:
            code = -1 if result.exit_code is None else result.exit_code
            detail = result.error if code == NOT_STARTED else None
            return CommandFailedError(code, detail, result=result)


def _joined(message: str | None, note: str) -> str | None:
    return f"{message}; {note}" if message and note else message or note or None


def _stored(message: str) -> str:
    # PostgreSQL's text can't hold a NUL: the API would refuse the state again and again.
    return valid_text(message).replace("\0", "\N{SYMBOL FOR NULL}")


def _final_state(status: ExecutionStatus, message: str | None, data: Any) -> State[Any]:
    message = None if message is None else _stored(message)
    match status:
        case ExecutionStatus.COMPLETED:
            return Completed(message=message, data=data)
        case ExecutionStatus.CANCELLED:
            return Cancelled(message=message, data=data)
        case ExecutionStatus.TIMEOUT:
            return Failed(name=TIMED_OUT, message=message, data=data)
        case _:
            return Failed(message=message, data=data)
