"""The Prefect server that everything is measured against."""

import time
from pathlib import Path
from typing import Self

import psutil
from servers import PrefectServer

from cloudops_prefect.server_settings import DEFAULT_SETTINGS

IDLE_PERCENT = 15.0


class Server(PrefectServer):
    """A Prefect server with a home of its own and the settings that `cloudops server` gives it."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.database = home / "prefect.db"
        super().__init__(home, **DEFAULT_SETTINGS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def settle(self, seconds: float = 6) -> None:
        """Waits until the server has nothing left to record, so that nobody pays for another."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.cpu_percent(0.3) > IDLE_PERCENT:
            pass
