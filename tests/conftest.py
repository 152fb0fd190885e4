import os
import pwd
import signal
import sys
from collections.abc import Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import certifi
import pytest
from hypothesis import settings
from servers import PrefectServer, send_what_is_queued

from cloudops_prefect.unicode_text import valid_text

pytest_plugins = ["skips"]

# The tests start Python some hundred times, which would compile the package each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Under make, a make within would print the directories that it enters.
for variable in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(variable, None)

# Started in the background or by nohup, the tests and what they start would ignore what they send.
for ignored, handler in {
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
}.items():
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, handler)

# How long an example takes tells of the machine, not of the code.
settings.register_profile("cloudops", deadline=None)
settings.load_profile("cloudops")


LONGEST = (
    "test_deployed_route",
    "test_stopping_worker",
    "test_two_workers",
    "test_docs",
    "test_api_away",
    "test_deployments",
    "test_cli",
    "test_stopping",
    "test_exit",
    "test_ui",
)
"""The files that take longest, which begin first, so that none of them ends alone."""


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Replace what is not UTF-8: pytest-xdist passes nothing else between its processes."""
    return _valid((yield))


def _valid(data: Any) -> Any:
    if isinstance(data, str):
        return valid_text(data)
    if isinstance(data, dict):
        return {_valid(key): _valid(value) for key, value in data.items()}
    return [*map(_valid, data)] if isinstance(data, list | tuple) else data


def pytest_report_header() -> str:
    shown = ("prefect", "pydantic", "fastapi", "SQLAlchemy", "PyYAML")
    return ", ".join(f"{name} {version(name)}" for name in shown)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: rank for rank, name in enumerate(LONGEST)}
    for item in items:
        if "prefect_api" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server)
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def one_trusted_authority(tmp_path_factory) -> Iterator[None]:
    """Each client of an API reads all that is trusted, for 30 ms; no test needs any of it."""
    end = "-----END CERTIFICATE-----\n"
    first, *_ = Path(certifi.where()).read_text().split(end)
    path = tmp_path_factory.mktemp("certificates") / "one.pem"
    path.write_text(first + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory) -> Iterator[str]:
    """A Prefect server of the session's own; its address."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect"))
    try:
        server.start()
        yield server.url
    finally:
        send_what_is_queued()
        server.stop()


@pytest.fixture
def api(prefect_api) -> Iterator[str]:
    """The session's Prefect server, as the one that is configured."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api


@pytest.fixture
def directory_of_nobody(tmp_path) -> Iterator[Path]:
    """Runs the test as a user who may not read every file: root becomes `nobody` for it.

    Gives a directory in which that user may write.
    """
    if os.geteuid() != 0:
        yield tmp_path
        return
    nobody = pwd.getpwnam("nobody").pw_uid
    # pytest's own directories are closed to other users.
    with TemporaryDirectory(dir="/tmp") as directory:
        os.chown(directory, nobody, -1)
        os.seteuid(nobody)
        try:
            yield Path(directory)
        finally:
            os.seteuid(0)


@pytest.fixture
def config(tmp_path):
    """Logs of the test's own, and little patience with what won't stop."""
    from cloudops_prefect import ExecutionConfig

    return ExecutionConfig(log_dir=tmp_path / "logs", grace_period_ms=1000)
