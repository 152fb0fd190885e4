"""`cloudops doctor`, and the automation that it creates, against a real server."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest
from engines import until
from in_process import Cloudops
from prefect.client.orchestration import get_client
from prefect.events.actions import DoNothing
from prefect.events.clients import get_events_client
from prefect.events.schemas.automations import AutomationCore
from prefect.events.schemas.events import Event
from prefect.states import Completed, Pending, Running
from workers import create_pool

from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.crashes import error_of_state
from cloudops_prefect.doctor import (
    HEARTBEAT,
    NAME,
    STRANDED_NAME,
    crash_automation,
    examine,
    stranded_automation,
)
from cloudops_prefect.stranded import GIVEN_BACK

pytestmark = [pytest.mark.anyio, pytest.mark.server]
POOL = "doctor"
AUTOMATIONS = {"crash detection": NAME, "stranded runs": STRANDED_NAME}
NOWHERE = "http://127.0.0.1:9/api"


@pytest.fixture
async def client(api):
    async with get_client() as client:
        yield client
        for name in AUTOMATIONS.values():
            for automation in await client.read_automations_by_name(name):
                await client.delete_automation(automation.id)


def findings_of(findings) -> dict[str, bool]:
    return {finding.subject: finding.ok for finding in findings}


def levels_of(findings) -> dict[str, str]:
    return {finding.subject: finding.level for finding in findings}


async def test_what_is_missing_is_named_and_created_once(client, config):
    before = await examine(config)
    missing = dict.fromkeys(AUTOMATIONS, "note")
    assert levels_of(before) == {"API": "ok", "log directory": "ok"} | missing
    assert not any(finding.ok for finding in before[-2:])
    assert all("doctor --fix" in finding.advice for finding in before[-2:])
    for _ in range(2):
        assert all(findings_of(await examine(config, fix=True)).values())
    assert all(findings_of(await examine(config)).values())
    for name in AUTOMATIONS.values():
        (automation,) = await client.read_automations_by_name(name)
        assert automation.trigger.within >= timedelta(seconds=3 * 180)


async def test_an_automation_that_is_too_quick_is_replaced(client, config):
    await client.create_automation(crash_automation(timedelta(seconds=60)))
    (finding,) = [one for one in await examine(config) if one.subject == "crash detection"]
    assert "less than 540 s" in finding.detail
    await examine(config, fix=True)
    (automation,) = await client.read_automations_by_name(NAME)
    assert automation.trigger.within > timedelta(seconds=60)


def disabled(automation) -> None:
    automation.enabled = False


def another_trigger(automation) -> None:
    automation.trigger.expect = automation.trigger.expect - {"prefect.flow-run.Completed"}


def another_flow(automation) -> None:
    automation.trigger.match_related = {"prefect.resource.name": "mine"}


def another_action(automation) -> None:
    automation.actions = [DoNothing()]


@pytest.mark.parametrize("alter", [disabled, another_trigger, another_flow, another_action])
async def test_an_automation_that_was_altered_is_mended_in_place(client, config, alter):
    await examine(config, fix=True)
    (automation,) = await client.read_automations_by_name(NAME)
    altered = AutomationCore.model_validate(automation.model_dump(exclude={"id"}))
    alter(altered)
    await client.delete_automation(automation.id)
    altered_id = await client.create_automation(altered)
    assert levels_of(await examine(config))["crash detection"] == "broken"
    await examine(config, fix=True)
    assert findings_of(await examine(config))["crash detection"]
    (mended,) = await client.read_automations_by_name(NAME)
    assert mended.id == altered_id
    assert mended.trigger == automation.trigger


async def test_what_a_user_added_to_an_automation_stays(client, config):
    wanted = crash_automation(timedelta(seconds=900))
    wanted.actions.append(DoNothing())
    await client.create_automation(wanted)
    assert findings_of(await examine(config))["crash detection"]
    (automation,) = await client.read_automations_by_name(NAME)
    await client.pause_automation(automation.id)
    await examine(config, fix=True)
    (mended,) = await client.read_automations_by_name(NAME)
    assert mended.enabled
    assert mended.actions == wanted.actions
    assert mended.trigger.within == timedelta(seconds=900)


async def test_of_two_automations_one_is_left_and_those_of_others_are_not_touched(client, config):
    others = crash_automation(timedelta(seconds=60)).model_copy(update={"name": f"my {NAME}"})
    other_id = await client.create_automation(others)
    for _ in range(2):
        await client.create_automation(crash_automation(timedelta(seconds=540)))
    (finding,) = [one for one in await examine(config) if one.subject == "crash detection"]
    assert "2 automations" in finding.detail
    await examine(config, fix=True)
    assert len(await client.read_automations_by_name(NAME)) == 1
    (other,) = await client.read_automations_by_name(others.name)
    await client.delete_automation(other_id)
    assert other.id == other_id
    assert other.trigger == others.trigger


async def heartbeat(client, flow_run_id) -> None:
    event = Event(
        occurred=(await client.read_flow_run(flow_run_id)).state.timestamp,
        event=HEARTBEAT,
        resource={"prefect.resource.id": f"prefect.flow-run.{flow_run_id}"},
        related=[
            {
                "prefect.resource.id": f"prefect.flow.{uuid4()}",
                "prefect.resource.role": "flow",
                "prefect.resource.name": "run-command",
            }
        ],
    )
    async with get_events_client() as events:
        await events.emit(event)


async def test_a_run_without_heartbeats_is_marked_and_one_that_has_ended_is_not(client, config):
    await client.create_automation(crash_automation(timedelta(seconds=10)))
    flow_id = await client.create_flow_from_name("run-command")
    deployment_id = await client.create_deployment(flow_id, name=uuid4().hex)
    runs = [
        await client.create_flow_run_from_deployment(deployment_id, state=Running())
        for _ in range(2)
    ]
    for run in runs:
        await client.set_flow_run_state(run.id, Running(), force=True)
        await heartbeat(client, run.id)
    silent, ended = runs
    began = (await client.read_flow_run(silent.id)).state.timestamp
    await client.set_flow_run_state(ended.id, Completed(), force=True)

    async def is_marked() -> bool:
        return (await client.read_flow_run(silent.id)).state.is_crashed()

    await until(is_marked, 60)
    assert (await client.read_flow_run(ended.id)).state.is_completed()
    crashed = (await client.read_flow_run(silent.id)).state
    error, _, heard = (error_of_state(crashed) or "").partition("; last heard of at ")
    assert error.endswith("no heartbeat for 10 s")
    assert began - timedelta(seconds=1) < datetime.fromisoformat(heard) < crashed.timestamp


async def test_a_run_that_stays_pending_goes_back_to_its_pool(client, api):
    await client.create_automation(stranded_automation(timedelta(seconds=10)))
    create_pool(api, POOL)
    flow_id = await client.create_flow_from_name("run-command")
    of_pool = await client.create_deployment(flow_id, name=uuid4().hex, work_pool_name=POOL)
    of_engine = await client.create_deployment(flow_id, name=uuid4().hex)
    stays, begins, waits = [
        (await client.create_flow_run_from_deployment(deployment, state=Pending())).id
        for deployment in (of_pool, of_pool, of_engine)
    ]
    await client.set_flow_run_state(begins, Running())

    async def is_given_back() -> bool:
        return (await client.read_flow_run(stays)).state.is_scheduled()

    await until(is_given_back, 60)
    states = await client.read_flow_run_states(stays)
    assert any((state.message or "").startswith(GIVEN_BACK) for state in states)
    assert (await client.read_flow_run(begins)).state.is_running()
    assert (await client.read_flow_run(waits)).state.is_pending()
    async with get_client() as worker:
        (due,) = await worker.get_scheduled_flow_runs_for_work_pool(POOL)
    assert due.flow_run.id == stays


def test_the_command_says_what_is_wrong_and_how_to_mend_it(api, tmp_path):
    env = os.environ | {"PREFECT_API_URL": NOWHERE, "CLOUDOPS_LOG_DIR": "/dev/null"}
    done = subprocess.run(
        [sys.executable, "-m", "cloudops_prefect", "doctor"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"broken  API: the Prefect API at {NOWHERE} does not answer\n" in done.stdout
    assert "        is PREFECT_API_URL right?\n" in done.stdout
    assert "/dev/null is not a directory" in done.stdout


async def test_the_command_fails_for_what_is_broken_and_not_for_what_is_not_set_up(
    client, api, tmp_path
):
    cloudops = Cloudops(api, tmp_path)
    new = await anyio.to_thread.run_sync(cloudops, "doctor")
    assert (new.returncode, new.stderr) == (0, "")
    for subject in AUTOMATIONS:
        assert f"note    {subject}: not set up: " in new.stdout
    fixed = await anyio.to_thread.run_sync(cloudops, "doctor", "--fix")
    assert (fixed.returncode, "note" in fixed.stdout) == (0, False)
    (automation,) = await client.read_automations_by_name(NAME)
    await client.pause_automation(automation.id)
    broken = await anyio.to_thread.run_sync(cloudops, "doctor", "--json")
    assert broken.returncode == 1
    levels = {one["subject"]: one["level"] for one in json.loads(broken.stdout)}
    assert levels == levels_of(await examine(ExecutionConfig(log_dir=tmp_path)))
    assert levels["crash detection"] == "broken"
