"""`python -m cloudops_prefect.server_process` is Prefect's command, for servers that do not stall.

Among a server's garbage are cursors of its SQLite connections. To let go of one, Python waits for
its connection, which another thread may have in use, which may wait for the lock that a transaction
of the event loop holds. If it is the event loop's thread that collects the cursor, the server
stands still until SQLite gives up, after 10 seconds or a multiple. Here another thread collects.
"""

import gc
import threading
import time

INTERVAL = 5.0
"""Seconds between two collections."""


def main() -> None:
    """Runs Prefect's command with the arguments of this process."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage-collector", daemon=True).start()
    from prefect.cli import app

    app()


def _collect() -> None:
    while True:
        time.sleep(INTERVAL)
        gc.collect()


if __name__ == "__main__":
    main()
