"""An API that refuses, or takes a connection and never answers."""

import socket
import time

import httpx
import pytest
from engines import shell
from prefect.settings import PREFECT_API_URL, temporary_settings

from cloudops_prefect import Deployments, ExecutionEngine, ExecutionIOError
from cloudops_prefect.api_errors import api_complaint
from cloudops_prefect.doctor import examine

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["refuses", "is silent"])
def address(request):
    """Where nobody answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "is silent":
            listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            yield url


@pytest.mark.parametrize("deployments", [None, Deployments()], ids=["local", "deployed"])
async def test_it_is_named_within_ten_seconds(address, config, deployments):
    began = time.monotonic()
    async with ExecutionEngine(config, deployments=deployments) as engine:
        with pytest.raises(ExecutionIOError, match=f"{address} does not answer"):
            await engine.execute(shell("true"))
    assert time.monotonic() - began < 10


async def test_the_doctor_names_it_within_ten_seconds(address, config):
    began = time.monotonic()
    api, _ = await examine(config)
    assert api.detail.startswith(f"the Prefect API at {address} does not answer")
    assert not api.ok
    assert time.monotonic() - began < 10


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
