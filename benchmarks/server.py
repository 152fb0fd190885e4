"""The Prefect server that everything is measured against."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Self

import psutil

from cloudops_prefect.server import DEFAULT_SETTINGS

BOOT_SECONDS = 90
IDLE_PERCENT = 15.0


class Server:
    """A Prefect server with a home of its own and the settings that `cloudops server` gives it."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/api"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> Path:
        return self.home / "prefect.db"

    def __enter__(self) -> Self:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        argv = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
        with (self.home / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*argv, "--port", str(self._port)],
                env=inherited | DEFAULT_SETTINGS | {"PREFECT_HOME": str(self.home)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.home / "server.log").read_text())
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def settle(self, seconds: float = 6) -> None:
        """Waits until the server has nothing left to record, so that nobody pays for another."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.cpu_percent(0.3) > IDLE_PERCENT:
            pass

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False
