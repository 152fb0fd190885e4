"""One Prefect task for each kind of command."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, cast

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun, TaskRunResult
from prefect.concurrency._asyncio import concurrency
from prefect.context import FlowRunContext, TagsContext, TaskRunContext
from prefect.logging.loggers import task_run_logger
from prefect.states import exception_to_crashed_state
from prefect.tasks import Task

from cloudops_prefect.await_check import CheckedTask
from cloudops_prefect.block_env import read_environment
from cloudops_prefect.errors import InvalidCommandError
from cloudops_prefect.execution import CommandExecution
from cloudops_prefect.models import ExecutionRequest, ExecutionResult, require
from cloudops_prefect.naming import api_credentials, shown_name
from cloudops_prefect.output import OutputReader
from cloudops_prefect.output_feed import OutputFeed
from cloudops_prefect.recording import TaskRunRecord
from cloudops_prefect.run_background import end_with_called_flow
from cloudops_prefect.services import Services, current_services, open_here
from cloudops_prefect.states import cancelled_state, error_of, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State
    from prefect.events.schemas.events import RelatedResource
    from prefect.types import DateTime

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.recording import TaskRunEnd

P = ParamSpec("P")
R = TypeVar("R")
CommandTask: TypeAlias = Task[[ExecutionRequest], Any]

logger = logging.getLogger("cloudops_prefect.tasks")


@dataclass(frozen=True, slots=True)
class CommandRun:
    """A command whose execution a flow of this package has prepared for the task it starts."""

    execution: CommandExecution
    flow_run_id: UUID | None
    task_run_id: UUID


async def _run(request: ExecutionRequest) -> ExecutionResult:
    """Runs the command of a task that a flow of the user's calls like any other task."""
    async with current_services() as services:
        run = _unprepared(request, services)
        await _run_and_publish(run, services)
        await end_with_called_flow(run.execution)
        result = run.execution.result_with_output()
        if run.flow_run_id is not None:
            await services.publisher.flush(run.flow_run_id)
    if (error := error_of(result, request.effective_timeout_ms(services.config))) is not None:
        raise error
    return result


def _unprepared(request: ExecutionRequest, services: Services) -> CommandRun:
    request.validate(services.config)
    context = TaskRunContext.get()
    assert context is not None  # noqa: S101 (Prefect sets it before it calls a task)
    task_run = context.task_run
    execution = CommandExecution(
        request, task_run.id, services.config, env_from=tuple(request.env_from)
    )
    return CommandRun(execution, task_run.flow_run_id, task_run.id)


async def _run_and_publish(run: CommandRun, services: Services) -> ExecutionResult:
    """Runs the command to a result: whatever goes wrong is this command's failure alone."""
    execution = run.execution
    feed: OutputFeed | None = None
    try:
        await _prepare(execution)
        feed = _feed(run, services)
        return await execution.run()
    except Exception as error:
        logger.debug("Command %s could not be run", execution.execution_id, exc_info=True)
        return execution.fail(error)
    finally:
        if feed is not None:
            feed.ended = True


async def _prepare(execution: CommandExecution) -> None:
    """Reads the blocks and opens the log."""
    execution.secrets = api_credentials()
    if execution.env_from:
        execution.env, secrets = await read_environment(execution.env_from)
        execution.secrets += secrets
    execution.open()


def _feed(run: CommandRun, services: Services) -> OutputFeed | None:
    if not services.config.stream_output or run.flow_run_id is None:
        return None
    path = run.execution.log_path
    feed = OutputFeed(
        path=path,
        flow_run_id=run.flow_run_id,
        task_run_id=run.task_run_id,
        budget=services.config.max_api_log_bytes,
        reader=OutputReader(path, from_end=True),
        record_bytes=services.publisher.record_bytes,
    )
    services.publisher.add_output(feed)
    return feed


def _task_run_name(parameters: dict[str, Any]) -> str:
    # Prefect asks for the name before it runs the task.
    request = parameters["request"]
    require(ExecutionRequest, request)
    services = open_here()
    return shown_name(request, services.config if services else None)


# Prefect's default cache policy would make two equal commands of a run one command, and a retried
# run skip a command that had failed. What a retry skips, `flows` decides by the results it reads.
_OPTIONS: dict[str, Any] = {
    "task_run_name": _task_run_name,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


def _command_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    return lambda fn: CheckedTask(fn, name=name, **_OPTIONS)


@_command_task("run_script")
async def run_script(request: ExecutionRequest) -> ExecutionResult:
    """Runs a script file.

    Raises:
        ValidationError: The request is refused.
        CommandFailedError: The script ended with another code than 0.
        ExecutionTimeoutError: It took longer than its timeout.
    """
    return await _run_kind("script", request)


@_command_task("run_exec")
async def run_exec(request: ExecutionRequest) -> ExecutionResult:
    """Runs a program with arguments; raises as `run_script` does."""
    return await _run_kind("exec", request)


@_command_task("run_shell")
async def run_shell(request: ExecutionRequest) -> ExecutionResult:
    """Runs a shell command; raises as `run_script` does."""
    return await _run_kind("shell", request)


@_command_task("run_aws_cli")
async def run_aws_cli(request: ExecutionRequest) -> ExecutionResult:
    """Runs an AWS CLI call; raises as `run_script` does."""
    return await _run_kind("aws_cli", request)


async def _run_kind(kind: str, request: ExecutionRequest) -> ExecutionResult:
    if request.command.type != kind:
        raise InvalidCommandError(
            f"run_{kind} can't run a command of the type {request.command.type}"
        )
    return await _run(request)


TASKS: dict[str, Any] = {
    "script": run_script,
    "exec": run_exec,
    "shell": run_shell,
    "aws_cli": run_aws_cli,
}


async def run_command_task(
    run: CommandRun, upstream: Iterable[UUID], related: Iterable[RelatedResource]
) -> TaskRunEnd:
    """Runs a prepared command as a Prefect task run of the id that it was given.

    Args:
        run: What to run.
        upstream: The task runs that it has waited for.
        related: What events of its flow run are about besides.
    """
    request = run.execution.request
    async with current_services() as services:
        task_run = _task_run(request, run.task_run_id, upstream, services)
        record = TaskRunRecord(task_run, related, services.events)
        # Limits of tags hold for all task runs; the public form warns of each tag without one.
        async with concurrency([f"tag:{tag}" for tag in task_run.tags], suppress_warnings=True):
            record.begin(lambda: run.execution.started_at)
            try:
                state = state_of(await _run_and_publish(run, services))
            except asyncio.CancelledError:
                # Its process tree is gone by now.
                record.end(cancelled_state())
                raise
            except BaseException as error:
                record.end(await exception_to_crashed_state(error))
                raise
        if not state.is_completed():
            task_run_logger(task_run, TASKS[request.command.type]).error(state.message)
        return record.end(state)


async def record_task_run(
    request: ExecutionRequest,
    task_run_id: UUID,
    upstream: Iterable[UUID],
    related: Iterable[RelatedResource],
    state: State[Any],
) -> TaskRunEnd:
    """Records a task run that ends without having run, so that the UI shows the whole plan."""
    async with current_services() as services:
        task_run = _task_run(request, task_run_id, upstream, services)
        # Without an end the UI's graph would stretch it, and the whole plan, to the present.
        task_run.end_time = task_run.expected_start_time
        return TaskRunRecord(task_run, related, services.events).end(state)


async def create_task_run(  # noqa: PLR0913, PLR0917 (what makes a task run)
    client: PrefectClient,
    request: ExecutionRequest,
    flow_run_id: UUID,
    task_run_id: UUID,
    state: State[Any],
    config: ExecutionConfig,
) -> None:
    """Creates the task run of a command from outside of its run."""
    await client.create_task_run(
        TASKS[request.command.type],
        flow_run_id,
        dynamic_key=str(task_run_id),
        id=task_run_id,
        name=shown_name(request, config),
        state=state,
    )


def _task_run(
    request: ExecutionRequest, task_run_id: UUID, upstream: Iterable[UUID], services: Services
) -> TaskRun:
    """Describes a task run and its edges, which Prefect would search upstream states for."""
    command_task: CommandTask = TASKS[request.command.type]
    context = FlowRunContext.get()
    flow_run = None if context is None else context.flow_run
    return TaskRun(
        id=task_run_id,
        name=shown_name(request, services.config),
        flow_run_id=None if flow_run is None else flow_run.id,
        flow_run_run_count=0 if flow_run is None else flow_run.run_count,
        task_key=command_task.task_key,
        dynamic_key=str(task_run_id),
        task_version=command_task.version,
        tags=sorted(TagsContext.get().current_tags),
        task_inputs={"wait_for": [TaskRunResult(id=upstream_id) for upstream_id in upstream]},
        expected_start_time=cast("DateTime", datetime.now(UTC)),
    )
