"""`python -m cloudops_prefect.server_process` is Prefect's command, for servers that do not stall.

With `ephemeral PORT PID` it is the server that Prefect starts for one process, and ends with that.
Three things are different:

- Among a server's garbage are cursors of its SQLite connections. To let go of one, Python waits for
  its connection, which another thread may have in use, which may wait for the lock that a
  transaction of the event loop holds. If it is the event loop's thread that collects the cursor,
  the server stands still until SQLite gives up, after 10 seconds or a multiple. Here another thread
  collects.
- A transaction that reads before it writes fails in SQLite when another one has written in between;
  Prefect answers 503. Here one writes after the other, in the order in which they ask.
- Prefect cuts the interval in which it records task runs to whole seconds. Whoever waits until the
  end of one is recorded, as each engine does when it closes, would wait that long.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from cloudops_prefect.ephemeral import COMMAND as EPHEMERAL

COLLECTION_INTERVAL = 5.0
"""Seconds between two collections."""
BOOT = 30.0
"""Seconds after which what is there for good has come."""
SHORTEST_SETTING = 1
FLUSH_INTERVAL = 0.2
"""Seconds in which task runs are recorded, where the setting is the shortest that it can be."""

PARENT_INTERVAL = 0.5
"""Seconds between two looks for the process that an ephemeral server belongs to."""

_has_turn: ContextVar[bool] = ContextVar("has_turn", default=False)
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def main() -> None:
    """Runs Prefect's command with the arguments of this process, or an ephemeral server."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage-collector", daemon=True).start()
    if sys.argv[1:2] == [EPHEMERAL]:
        _serve(port=int(sys.argv[2]), parent=int(sys.argv[3]))
        return
    from prefect.cli import app

    _do_not_stall()
    app()


def _serve(*, port: int, parent: int) -> None:
    threading.Thread(target=_end_with, args=[parent], name="parent-watcher", daemon=True).start()
    import uvicorn

    _do_not_stall()
    application = "prefect.server.api.server:create_app"
    uvicorn.run(application, factory=True, port=port, log_level="error", lifespan="on")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)


def _do_not_stall() -> None:
    _write_in_turn()
    _record_soon()


def _collect() -> None:
    started = time.monotonic()
    while True:
        time.sleep(COLLECTION_INTERVAL)
        gc.collect()
        # All stands still while the whole of Prefect is searched for garbage, of which it has none.
        if time.monotonic() - started < BOOT:
            gc.freeze()


def _write_in_turn() -> None:
    from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    @asynccontextmanager
    async def begin_in_turn(
        self: AioSqliteConfiguration,
        session: AsyncSession,
        with_for_update: bool = False,  # noqa: FBT001, FBT002 (as the method that it replaces)
    ) -> AsyncGenerator[AsyncSessionTransaction]:
        # Within a transaction another one would wait for itself.
        if _has_turn.get():
            async with begin(self, session, with_for_update=with_for_update) as transaction:
                yield transaction
            return
        turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with turn, session.begin() as transaction:
            has_turn = _has_turn.set(True)
            # What is read in another session meanwhile is not to wait for this transaction.
            mode = SQLITE_BEGIN_MODE.set("IMMEDIATE")
            try:
                await session.connection()
            finally:
                SQLITE_BEGIN_MODE.reset(mode)
            try:
                yield transaction
            finally:
                _has_turn.reset(has_turn)

    AioSqliteConfiguration.begin_transaction = begin_in_turn


def _record_soon() -> None:
    from prefect.server.services import task_run_recorder as recorder

    consumer = recorder.consumer

    def soon(*, flush_every: float, **options: Any) -> AbstractAsyncContextManager[Any]:
        interval = FLUSH_INTERVAL if flush_every <= SHORTEST_SETTING else flush_every
        return consumer(flush_every=interval, **options)  # pyright: ignore[reportArgumentType]

    recorder.consumer = soon


if __name__ == "__main__":
    main()
