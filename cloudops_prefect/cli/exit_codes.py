"""What the command line's exit codes say."""

import signal
from typing import TYPE_CHECKING

from cloudops_prefect.errors import CommandFailedError

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionResult, ExecutionStatus

COMPLETED = 0
FAILED = 1
BAD_INPUT = 2
TIMED_OUT = 124
NOT_STARTED = 127
SIGNALLED = 128
CANCELLED = SIGNALLED + signal.SIGINT


def of_status(status: "ExecutionStatus", signal_number: int | None = None) -> int:
    """The exit code for how an execution ended.

    Args:
        status: Its final status.
        signal_number: The signal that made us cancel it, if one did.
    """
    cancelled = SIGNALLED + (signal_number or signal.SIGINT)
    codes = {"completed": COMPLETED, "timeout": TIMED_OUT, "cancelled": cancelled}
    return codes.get(status, FAILED)


def of_command(result: "ExecutionResult", signal_number: int | None = None) -> int:
    """The command's own exit code, as a shell gives it: 128 + N if signal N ended it."""
    code = result.exit_code
    if result.status != "failed" or code is None:
        return of_status(result.status, signal_number)
    if code >= 0:
        return code or FAILED
    # What could not be started has the exit code -1 as well, which is not signal 1.
    ran = (result.error or "").startswith("Command failed")
    return SIGNALLED - code if ran else NOT_STARTED


def says_all(result: "ExecutionResult") -> bool:
    """Whether the exit code is all that there is to say: the command ended, and ended itself."""
    code = result.exit_code or COMPLETED
    exited = code >= 0 and result.error == str(CommandFailedError(code))
    return result.error is None or exited
