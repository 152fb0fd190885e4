"""An API of the tests' own: it takes logs, events and artifacts, and answers as a test says."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any


@dataclass
class SmallApi:
    """What was asked of it, and how it answers.

    Attributes:
        answer: Gives the status of the answer to what was posted: where to, and how many bytes.
        logs: The records that it took.
        events: The events that it took.
        artifacts: The artifacts that it took.
        batches: The records or events that it took at a time.
        asked: How often something was posted.
    """

    url: str = ""
    answer: Callable[[str, int], int] = lambda path, size: 201
    logs: list[dict] = field(default_factory=list)
    events: list[dict] = field(default_factory=list)
    artifacts: list[dict] = field(default_factory=list)
    batches: list[list[dict]] = field(default_factory=list)
    asked: int = 0

    def take(self, path: str, body: bytes) -> int:
        self.asked += 1
        status = self.answer(path, len(body))
        if status < 300:
            self._keep(path.rstrip("/").rpartition("/")[2], json.loads(body))
        return status

    def _keep(self, kind: str, document: Any) -> None:
        if kind == "artifacts":
            self.artifacts.append(document)
        elif kind in {"logs", "events"}:
            self.batches.append(document)
            getattr(self, kind).extend(document)

    @property
    def text(self) -> str:
        """All that was printed, of one stream of one command."""
        return "\n".join(record["message"] for record in self.logs)


@contextmanager
def small_api() -> Iterator[SmallApi]:
    api = SmallApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path.endswith("/admin/version"):
                self.reply(200, version("prefect"))
            elif "/csrf-token" in self.path:
                # It has none.
                self.reply(404, {})
            else:
                self.reply(api.answer(self.path, 0), {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(api.take(self.path, body), {})

        def reply(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}/api"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
