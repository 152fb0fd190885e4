"""Errors that no part of the package expects: which they are, and what is said of them."""

from __future__ import annotations

import asyncio
from typing import cast

from cloudops_prefect.errors import ExecutionError
from cloudops_prefect.unicode_text import valid_text

UNFORESEEN = "unforeseen error"
"""How begins what is said of an error that is none of `cloudops_prefect.errors`."""


def is_unforeseen(error: BaseException) -> bool:
    """Return whether an error comes from a part of a run, and is not meant for its whole task.

    To be called where the error is caught. A `CancelledError` counts if nobody has cancelled this
    task: it is raised by what awaits another task that was cancelled. A `SystemExit` would end the
    event loop and everything that runs in it.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, (Exception, SystemExit))


def reason_of(error: BaseException) -> str:
    """Return the reason to report for an error: of errors that are not ours with the type."""
    error = _cause_of(error)
    ours = isinstance(error, ExecutionError)
    return str(error) if ours else valid_text(f"{UNFORESEEN}: {error!r}")


def _cause_of(error: BaseException) -> BaseException:
    """Return what a task group has wrapped."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
