"""Runs a flow of the user's own while an engine runs a plan, and prints how their tasks ended."""

import asyncio
import sys

import anyio
from prefect import flow, get_client, task
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker
from prefect.runtime import flow_run

from cloudops_prefect import ExecutionEngine, ExecutionPlan, ExecutionRequest, ShellCommand
from cloudops_prefect.prefect_internals import events_client_override

GATE = anyio.Path(sys.argv[1])
GATED = f"until test -e {GATE}; do sleep 0.02; done"
PLAN = ExecutionPlan(commands=[ExecutionRequest(command=ShellCommand(command=GATED))])
by_prefect = set()


def recorded(emit):
    async def _emit(self, event):
        # The heartbeat of a flow run begins before its commands do, and Prefect's worker may take
        # the event of its last artifact after its end.
        if event.event.startswith("prefect.task-run."):
            by_prefect.update(resource.id for resource in event.involved_resources)
        await emit(self, event)

    return _emit


PrefectEventsClient._emit = recorded(PrefectEventsClient._emit)


@task
async def plain():
    pass


@flow
async def theirs(engine):
    execution_id = await engine.execute_plan(PLAN)
    async for event in engine.stream(execution_id):
        if event.event_type == "started":
            break
    # Prefect's worker of events has begun within the run of the plan.
    for _ in range(20):
        await plain()
    await GATE.touch()
    await engine.wait(execution_id)
    return flow_run.id, execution_id


async def states_of(client, flow_run_id):
    wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
    return [one.state_name for one in await client.read_task_runs(task_run_filter=wanted)]


async def main():
    async with ExecutionEngine() as engine:
        other, ours = await theirs(engine)
    await asyncio.to_thread(EventsWorker.drain_all)
    async with get_client() as client, asyncio.timeout(60):
        for name, flow_run_id, count in (("theirs", other, 20), ("ours", ours, 1)):
            while (states := await states_of(client, flow_run_id)) != ["Completed"] * count:
                await asyncio.sleep(0.1)
            print(f"{name}: {len(states)} completed")
            if f"prefect.flow-run.{flow_run_id}" in by_prefect:
                print(f"{name}: by Prefect's client")
    print(events_client_override())


asyncio.run(main())
