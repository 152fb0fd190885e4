from collections.abc import Iterator

import pytest
from servers import PrefectServer, send_what_is_queued


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


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
def config(tmp_path):
    """Logs of the test's own, and little patience with what won't stop."""
    from cloudops_prefect import ExecutionConfig

    return ExecutionConfig(log_dir=tmp_path / "logs", grace_period_ms=1000)
