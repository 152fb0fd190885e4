"""The tasks in flows of the user's own, with whatever options these give them."""

import pytest
from engines import shell
from prefect import flow
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from cloudops_prefect import run_shell

pytestmark = [pytest.mark.anyio, pytest.mark.server]


@pytest.fixture
def storage(api, tmp_path):
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "storage"}):
        yield


async def test_equal_commands_run_twice_and_failed_ones_again_also_where_results_are_persisted(
    storage, tmp_path
):
    counter = tmp_path / "counter"
    request = shell(f"echo x >> {counter}; test $(wc -l < {counter}) -gt 1")

    @flow(retries=1)
    async def release():
        run = run_shell.with_options(persist_result=True)
        return [await run(request), await run(request)]

    results = await release()
    assert [one.status for one in results] == ["completed"] * 2
    assert counter.read_text().count("x") == 3
