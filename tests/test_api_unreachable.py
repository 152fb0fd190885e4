"""An API that refuses, or takes a connection and never answers."""

import socket
from contextlib import suppress

import anyio
import httpx
import pytest
from engines import shell
from prefect.settings import PREFECT_API_URL, temporary_settings

from cloudops_prefect import Deployments, ExecutionEngine, ExecutionIOError, api_errors
from cloudops_prefect.api_errors import api_complaint
from cloudops_prefect.doctor import examine

pytestmark = pytest.mark.anyio
BOUND = 30
"""Seconds; Prefect's client by itself waits for a minute."""


def calls(listener: socket.socket) -> int:
    """How many have called."""
    listener.setblocking(False)
    number = 0
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            number += 1
    return number


@pytest.fixture(params=["refuses", "is silent"])
def address(request, monkeypatch):
    """Where nobody answers, and who calls waits for an answer once."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "is silent":
            listener.listen()
            monkeypatch.setattr(api_errors, "ANSWER_TIMEOUT_SECONDS", 0.5)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
        if request.param == "is silent":
            assert calls(listener) <= 1


@pytest.mark.parametrize("deployments", [None, Deployments()], ids=["local", "deployed"])
async def test_it_is_named_soon(address, config, deployments):
    with anyio.fail_after(BOUND):
        async with ExecutionEngine(config, deployments=deployments) as engine:
            with pytest.raises(ExecutionIOError, match=f"{address} does not answer"):
                await engine.execute(shell("true"))


async def test_the_doctor_names_it_soon(address, config):
    with anyio.fail_after(BOUND):
        api, _ = await examine(config)
    assert api.detail.startswith(f"the Prefect API at {address} does not answer")
    assert not api.ok


def test_one_wait_for_an_answer_leaves_room_in_ten_seconds():
    assert api_errors.ANSWER_TIMEOUT_SECONDS <= 9


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (404, "answered 404 Not Found; is PREFECT_API_URL right? It ends in /api"),
        (401, "answered 401 Unauthorized"),
    ],
)
def test_an_address_that_is_no_apis_is_doubted(code, complaint):
    request = httpx.Request("GET", "http://127.0.0.1:4200/health")
    response = httpx.Response(code, request=request)
    told = api_complaint(httpx.HTTPStatusError("", request=request, response=response))
    assert told is not None
    assert told.endswith(complaint)
