"""Flows that a caller calls: their runs have as parameter what they run, however large it is."""

from __future__ import annotations

import asyncio
from copy import copy
from typing import TYPE_CHECKING, Any, Self

from anyio.lowlevel import checkpoint
from prefect import Flow, get_client
from prefect.utilities.callables import get_call_parameters

from cloudops_prefect.await_check import checked
from cloudops_prefect.local_api import local_api
from cloudops_prefect.models import ExecutionPlan
from cloudops_prefect.parameters import parameters_of
from cloudops_prefect.plan_store import is_large, stored_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cloudops_prefect.models import ExecutionRequest


class CalledFlow(Flow[..., Any]):
    """A flow whose caller hears of it when the call is interrupted."""

    def with_options(self, **options: Any) -> Self:
        """Return a flow of the same class.

        Prefect's method returns a plain `Flow`, to which a large plan could not be given.
        """
        changed = copy(self)
        vars(changed).update(vars(super().with_options(**options)))
        return changed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run the flow."""
        return checked(self._begin(*args, **kwargs), self.name, "asyncio.run(…)")

    async def _begin(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow, without a configured API and outside of a run at the local server."""
        async with local_api():
            return await self._run_in_engine(*args, **kwargs)

    async def _run_in_engine(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow in Prefect's engine; raise if the call is cancelled meanwhile.

        Prefect's engine drops a cancellation once the flow run has a final state, as ours has when
        it was cancelled with its caller: after a Ctrl-C the caller's program would go on.
        """
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        try:
            return await super().__call__(*args, **kwargs)  # pyright: ignore[reportUnknownMemberType]
        finally:
            if task is not None and task.cancelling() > cancellations:
                # In a cancelled scope of anyio this raises the scope's own error, which it catches.
                await checkpoint()
                raise asyncio.CancelledError


class CompiledFlow(CalledFlow):
    """A flow without parameters, whose runs have at the API what it was made of as the parameter.

    Whoever reads a run sees the same as of one that an engine has created.
    """

    def __init__(
        self,
        fn: Callable[[], Coroutine[Any, Any, Any]],
        item: ExecutionPlan | ExecutionRequest,
        **options: Any,
    ) -> None:
        # To validate no parameters, Prefect would import pydantic's version 1 in each process.
        super().__init__(fn, validate_parameters=False, **options)
        self._item = item
        self._sent: dict[str, Any] | None = None

    async def _run_in_engine(self, *args: Any, **kwargs: Any) -> Any:
        self._sent = await _sent_parameters(self._item)
        return await super()._run_in_engine(*args, **kwargs)

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Return what a new run has as parameters at the API.

        Without them nobody could read, list or resume the run as a plan's or a command's.
        """
        return self._sent or parameters_of(self._item)


class PlanFlow(CalledFlow):
    """A flow whose parameter is a plan; a large one is stored, and the parameter names it."""

    async def _run_in_engine(self, *args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in ("return_state", "wait_for") if name in kwargs}
        parameters = get_call_parameters(self.fn, args, kwargs)
        plan = parameters["plan"]
        if isinstance(plan, (dict, ExecutionPlan)) and is_large(plan):
            parameters = await _sent_parameters(self.validate_parameters(parameters)["plan"])
        return await super()._run_in_engine(**parameters, **given)


async def _sent_parameters(item: ExecutionPlan | ExecutionRequest) -> dict[str, Any]:
    parameters = parameters_of(item)
    # A client is worth its time only where there is something to be stored.
    if not is_large(parameters):
        return parameters
    async with get_client() as client:
        return await stored_parameters(client, item)
