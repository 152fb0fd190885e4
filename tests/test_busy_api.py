"""An API that is busy for a moment, and answers 503."""

import threading
import time

import anyio
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from small_api import small_api

from cloudops_prefect import busy_api
from cloudops_prefect.busy_api import AT_ONCE, ask_again_soon

pytestmark = pytest.mark.anyio
REQUESTS = 50
"""More than a client has connections."""


@pytest.fixture
def api():
    with small_api() as api:
        yield api


@pytest.fixture
async def client(api):
    # A try of Prefect's own would come after 2 seconds.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        async with PrefectClient(api.url) as client:
            ask_again_soon(client)
            yield client


async def log(client) -> None:
    await client.create_logs([{"message": "one"}])


async def test_it_is_asked_again_until_it_has_taken_what_it_is_sent(api, client):
    answers = [503, 503, 503, 201]
    api.answer = lambda path, size: answers.pop(0)
    await log(client)
    assert (answers, len(api.logs)) == ([], 1)


async def test_what_is_busy_for_too_long_is_left_to_prefects_client(api, client, monkeypatch):
    monkeypatch.setattr(busy_api, "RETRY_TIMEOUT_SECONDS", 2)
    api.answer = lambda path, size: 503
    with pytest.raises(PrefectHTTPStatusError, match="503"):
        await log(client)
    assert api.asked > 2


async def test_those_who_wait_keep_no_connection_from_those_who_ask(api, client):
    lock, refused = threading.Lock(), []

    def answer(path, size) -> int:
        with lock:
            refused.append(path)
            return 503 if len(refused) <= REQUESTS else 201

    api.answer = answer
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(REQUESTS):
                tasks.start_soon(log, client)
    assert len(api.logs) == REQUESTS


async def test_another_answer_is_none_to_ask_again_for(api, client):
    api.answer = lambda path, size: 500
    with pytest.raises(PrefectHTTPStatusError, match="500"):
        await log(client)
    assert api.asked == 1


async def test_many_requests_are_not_in_flight_at_once(api, client):
    lock, running, most = threading.Lock(), [], []
    as_many = threading.Barrier(AT_ONCE, timeout=60)

    def answer(path, size) -> int:
        with lock:
            running.append(path)
            most.append(len(running))
        as_many.wait()
        # Long enough for others to come while these are there.
        time.sleep(0.05)
        with lock:
            running.pop()
        return 201

    api.answer = answer
    async with anyio.create_task_group() as tasks:
        for _ in range(5 * AT_ONCE):
            tasks.start_soon(log, client)
    assert max(most) == AT_ONCE
    assert len(api.logs) == 5 * AT_ONCE


async def test_a_client_is_wrapped_once(client):
    wrapped = client._client._transport
    ask_again_soon(client)
    assert client._client._transport is wrapped
