"""An event loop in a thread of its own, so that the caller's loop may stall or end without harm."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from anyio.from_thread import BlockingPortal
from prefect.context import SettingsContext, get_settings_context

from cloudops_prefect.api_errors import answered_client
from cloudops_prefect.dead_runs import tell_crashes
from cloudops_prefect.ephemeral import start_ephemeral_servers_well
from cloudops_prefect.local_api import choose_local_server, is_configured, use_local_server
from cloudops_prefect.services import open_services

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.services import Services

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Begun:
    """A loop that runs.

    Attributes:
        context: The context in which the services are the current ones, and their client Prefect's.
    """

    portal: BlockingPortal
    services: Services
    context: Context

    def spawn(self, function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:
        # A task of the loop gets a copy of the context in which it is asked for.
        start = self.portal.start_task_soon
        return self.context.copy().run(start, function, self.services, *args)


class LoopThread:
    """Runs coroutines with the services open; the thread ends with `stop` or with the process.

    It begins with the runs that dead processes of this machine have left. Where no API is
    configured, the thread uses that of the local server, if one runs when it begins.
    """

    def __init__(self, config: ExecutionConfig) -> None:
        self._config = config
        self._owner = os.getpid()
        self._ready: Future[_Begun] = Future()
        # Of the caller's context only the settings: a run that is started inside of a flow is not
        # a part of that flow.
        settings = get_settings_context()
        self._settings = SettingsContext(profile=settings.profile, settings=settings.settings)
        self._calls: set[Future[Any]] = set()
        self._context: Context | None = None
        self._thread = threading.Thread(
            target=self._run,
            name="cloudops-engine",
            daemon=True,
        )
        self._thread.start()

    @property
    def usable(self) -> bool:
        """Whether it runs or is about to: it could begin, and is no forked child's copy."""
        failed = self._ready.done() and self._ready.exception() is not None
        return not failed and os.getpid() == self._owner and self._thread.is_alive()

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Runs `function` in the thread, with the services as its first argument."""
        future = (await self._begun()).spawn(function, *args)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()
            raise

    def spawn(self, function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:
        """Starts `function` in the thread, after a first `call`, and does not wait for it."""
        return self._ready.result().spawn(function, *args)

    def run_in_context(self, function: Callable[..., R], *args: Any) -> R:
        """Call `function` here, with the settings that the thread uses."""
        context = self._context
        return function(*args) if context is None else context.copy().run(function, *args)

    async def stop(self) -> None:
        """Ends the thread once all calls are answered; cancels what else still runs in it."""
        portal = (await self._begun()).portal
        calls = [asyncio.wrap_future(call) for call in [*self._calls]]
        await asyncio.gather(*calls, return_exceptions=True)
        portal.start_task_soon(partial(portal.stop, cancel_remaining=True))
        await asyncio.to_thread(self._thread.join)

    async def _begun(self) -> _Begun:
        # Who waits may be cancelled, which must not cancel what the others wait for too.
        return await asyncio.shield(asyncio.wrap_future(self._ready))

    def _run(self) -> None:
        try:
            with (
                self._settings,
                use_local_server(None if is_configured() else choose_local_server()),
            ):
                self._context = copy_context()
                asyncio.run(self._main())
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
                return
            raise

    async def _main(self) -> None:
        start_ephemeral_servers_well()
        async with (
            answered_client() as client,
            open_services(self._config, client) as services,
            BlockingPortal() as portal,
        ):
            try:
                await tell_crashes(client, self._config)
            except Exception as error:  # noqa: BLE001 (whoever calls gets it)
                self._ready.set_exception(error)
                return
            self._ready.set_result(_Begun(portal, services, copy_context()))
            await portal.sleep_until_stopped()
