"""One Prefect task for each kind of command, for plans and for flows of the user's own."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.tasks import Task

from cloudops_prefect.await_check import CheckedTask
from cloudops_prefect.block_env import read_environment
from cloudops_prefect.command_task_engine import engine_for
from cloudops_prefect.errors import InvalidCommandError
from cloudops_prefect.execution import CommandExecution
from cloudops_prefect.models import ExecutionRequest, ExecutionResult, require
from cloudops_prefect.naming import api_credentials, shown_name
from cloudops_prefect.output import OutputReader
from cloudops_prefect.output_feed import OutputFeed
from cloudops_prefect.run_background import end_with_called_flow
from cloudops_prefect.services import Services, current_services, open_here
from cloudops_prefect.states import error_of, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State, TaskRun

    from cloudops_prefect.config import ExecutionConfig

P = ParamSpec("P")
R = TypeVar("R")
CommandTask: TypeAlias = Task[[ExecutionRequest], Any]

logger = logging.getLogger("cloudops_prefect.tasks")


@dataclass(frozen=True, slots=True)
class CommandRun:
    """A command and the run that its output and its result belong to."""

    execution: CommandExecution
    flow_run_id: UUID | None
    task_run_id: UUID


_prepared: dict[UUID, Callable[[TaskRun], Awaitable[State[Any]]]] = {}
"""The bodies of the task runs that `run_command_task` has begun, by their ids."""


async def _run(request: ExecutionRequest) -> Any:
    context = TaskRunContext.get()
    assert context is not None  # noqa: S101 (Prefect sets it before it calls a task)
    task_run = context.task_run
    if (run_prepared := _prepared.get(task_run.id)) is not None:
        return await run_prepared(task_run)
    return await _run_in_flow(request, task_run)


async def _run_in_flow(request: ExecutionRequest, task_run: TaskRun) -> ExecutionResult:
    """Run the command of a task that a flow of the user's calls like any other task."""
    async with current_services() as services:
        request.validate(services.config)
        execution = CommandExecution(
            request, task_run.id, services.config, env_from=tuple(request.env_from)
        )
        async with _published(CommandRun(execution, task_run.flow_run_id, task_run.id), services):
            await _advance(execution, execution.run)
        await end_with_called_flow(execution)
        result = execution.result_with_output()
        if task_run.flow_run_id is not None:
            await services.publisher.flush(task_run.flow_run_id)
    if (error := error_of(result, request.effective_timeout_ms(services.config))) is not None:
        raise error
    return result


async def run_command_task(
    run: CommandRun, upstream: Sequence[UUID], begin: Callable[[], object]
) -> TaskRun:
    """Run a prepared command as the task run of the id that it was given; return that.

    Args:
        run: The command.
        upstream: The task runs that it has waited for.
        begin: Is called when the task run is `Running`, before the command starts.
    """
    request, execution = run.execution.request, run.execution

    async def run_prepared(task_run: TaskRun) -> State[Any]:
        begin()
        # The state's time is what the API shows of the start while the command runs.
        execution.started_at = task_run.start_time
        await _advance(execution, execution.run)
        assert execution.result is not None  # noqa: S101 (it has run, or failed)
        return state_of(execution.result)

    async with current_services() as services, _published(run, services):
        _prepared[run.task_run_id] = run_prepared
        engine = engine_for(TASKS[request.command.type], request, upstream)
        try:
            return await engine.run(run.task_run_id)
        finally:
            del _prepared[run.task_run_id]


async def end_command_task(
    request: ExecutionRequest, task_run_id: UUID, upstream: Sequence[UUID], state: State[Any]
) -> TaskRun:
    """Report the task run of a command that ends without having run; return that.

    Args:
        request: The command's.
        task_run_id: The id of the task run.
        upstream: The task runs that the command has waited for.
        state: The final state.
    """
    engine = engine_for(TASKS[request.command.type], request, upstream)
    return await engine.end(task_run_id, _task_run_name({"request": request}), state)


@asynccontextmanager
async def _published(run: CommandRun, services: Services) -> AsyncGenerator[None]:
    """Prepare an execution, and send what it prints to the API."""
    feeds: list[OutputFeed] = []

    async def prepare() -> None:
        await _prepare(run.execution)
        feeds.extend(_feeds(run, services))

    await _advance(run.execution, prepare)
    try:
        yield
    finally:
        for feed in feeds:
            feed.ended = True


async def _advance(execution: CommandExecution, step: Callable[[], Awaitable[object]]) -> None:
    """Take the next step of an execution; an error ends it, and nothing besides."""
    if execution.result is not None:
        return
    try:
        await step()
    except Exception as error:
        logger.debug("Command %s could not be run", execution.execution_id, exc_info=True)
        execution.fail(error)


async def _prepare(execution: CommandExecution) -> None:
    """Read the blocks and open the log."""
    execution.secrets = api_credentials()
    if execution.env_from:
        execution.env, secrets = await read_environment(execution.env_from)
        execution.secrets += secrets
    execution.open()


def _feeds(run: CommandRun, services: Services) -> list[OutputFeed]:
    """Begin to send what a command prints, unless nobody is to get it."""
    if not services.config.stream_output or run.flow_run_id is None:
        return []
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
    return [feed]


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
    # PREFECT_TASKS_DEFAULT_RETRIES is meant for tasks that may run twice.
    "retries": 0,
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
