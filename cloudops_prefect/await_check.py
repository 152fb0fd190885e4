"""Report calls of tasks and flows that a flow does not await while its run goes on.

Prefect awaits a coroutine that a flow returns, but only after it has ended the flow run.
"""

from __future__ import annotations

import asyncio
import weakref
from copy import copy
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, cast

from prefect.context import FlowRunContext
from prefect.logging.loggers import flow_run_logger
from prefect.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from prefect.client.schemas.objects import FlowRun

P = ParamSpec("P")
R = TypeVar("R")


class CheckedTask(Task[P, R], Generic[P, R]):
    """A task whose calls are reported if the calling flow does not await them."""

    def with_options(self, **options: Any) -> Self:
        """Return a task of the same class; Prefect's own method returns a plain `Task`."""
        changed = copy(self)
        vars(changed).update(vars(super().with_options(**options)))
        return changed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Call the task."""
        called = cast("object", super().__call__(*args, **kwargs))  # pyright: ignore[reportUnknownMemberType]
        return checked(called, self.name, f"{self.name}.submit(…).result()")


def checked(called: object, name: str, in_sync_flow: str) -> Any:
    """Return a call so that it is reported in the log of the calling flow's run.

    Args:
        called: The coroutine of the call; anything else is returned as it is.
        name: What was called.
        in_sync_flow: How a synchronous flow makes the call.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not asyncio.iscoroutine(called):
        return called
    is_sync = context.flow is not None and not context.flow.isasync
    right = in_sync_flow if is_sync else f"await {name}(…)"
    return _Call(called, name, f"write `{right}`").checked(context.flow_run, is_sync=is_sync)


class _Call:
    def __init__(self, called: Coroutine[Any, Any, Any], name: str, advice: str) -> None:
        self._called = called
        self._name = name
        self._advice = advice
        self._has_begun = False

    def checked(self, flow_run: FlowRun, *, is_sync: bool) -> Coroutine[Any, Any, Any]:
        call = self._run(flow_run)
        # Python's own warning of a coroutine that was never awaited names it.
        call.__qualname__ = self._name
        # In an asynchronous flow a task that is cancelled before its first step looks the same.
        if is_sync:
            weakref.finalize(call, self._report_unless_begun, flow_run).atexit = False
        return call

    async def _run(self, flow_run: FlowRun) -> Any:
        self._has_begun = True
        if flow_run.state is not None and flow_run.state.is_final():
            flow_run_logger(flow_run).warning(
                "%s was not awaited while the flow ran: it runs after the end of the flow run and "
                "is no part of it; %s",
                self._name,
                self._advice,
            )
        return await self._called

    def _report_unless_begun(self, flow_run: FlowRun) -> None:
        if not self._has_begun:
            # Else Python warns of it, too.
            self._called.close()
            message = "%s was called and not awaited: nothing was run; %s"
            flow_run_logger(flow_run).error(message, self._name, self._advice)
