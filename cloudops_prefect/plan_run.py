"""One run of a plan: which command starts when, and what becomes of those that never start."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import anyio
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.states import Completed

from cloudops_prefect.errors import ExecutionError
from cloudops_prefect.execution import CommandExecution
from cloudops_prefect.left_results import leave_result
from cloudops_prefect.models import ExecutionRequest, ExecutionResult, ExecutionStatus
from cloudops_prefect.naming import shown_name, shown_text
from cloudops_prefect.publishing import PendingResult
from cloudops_prefect.records import ResultRecord
from cloudops_prefect.run_background import background_of_run
from cloudops_prefect.states import state_of
from cloudops_prefect.tasks import CommandRun, end_command_task, run_command_task
from cloudops_prefect.unforeseen_errors import is_unforeseen, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from prefect.client.schemas.objects import State, TaskRun

    from cloudops_prefect.graph import Wiring
    from cloudops_prefect.services import Services

PLAN_CANCELLED = "not run: the plan was cancelled"
COMMAND_CANCELLED = "not run: it was cancelled"
IN_EARLIER_ATTEMPT = "Completed in an earlier attempt"
ENDED = {
    ExecutionStatus.FAILED: "failed",
    ExecutionStatus.TIMEOUT: "timed out",
    ExecutionStatus.CANCELLED: "was cancelled",
}
MOST_NOTES = 3
"""How many unforeseen errors the message of a run's final state names."""

logger = logging.getLogger("cloudops_prefect.plan_run")


def task_run_id(flow_run_id: UUID, attempt: int, index: int) -> UUID:
    """Returns the id of a command's task run, so that who knows the run knows the commands' ids."""
    return uuid5(flow_run_id, f"{attempt}/{index}")


class PlanRun:
    """Runs the commands of a plan's graph, each as soon as what it waits for has ended.

    Attributes:
        results: How each command ended, by its index, without its output.
        executions: The commands that have been started.
        control: What cancels the run.
        routed: Whether the events of its task runs go through `TaskRunLedger.events`.
        suspended: Whether commands wait for the run to be resumed, since somebody suspended it.
        is_single: Whether it is the run of a single command, not of a plan.
        final_state: The state in which the flow run ends, once everything has ended.
    """

    def __init__(  # noqa: PLR0913
        self,
        wiring: Wiring,
        flow_run_id: UUID,
        services: Services,
        *,
        attempt: int,
        earlier: Mapping[int, ExecutionResult],
        directory: Path | None = None,
        env_from: Sequence[str] = (),
        single: bool = False,
    ) -> None:
        self.flow_run_id = flow_run_id
        self.control = services.control(flow_run_id)
        services.runs[flow_run_id] = self
        self.results: dict[int, ExecutionResult] = {}
        self.final_state: State[Any] | None = None
        self._task_runs: dict[int, TaskRun] = {}
        self._notes: list[str] = []
        self._wiring = wiring
        self._services = services
        self._attempt = attempt
        self._earlier = earlier
        self._directory = directory
        self.routed = False
        self.suspended = False
        self._env_from = env_from
        self.is_single = single
        self.executions: dict[int, CommandExecution] = {}
        self._waiting_for = [len(before) for before in wiring.predecessors]
        limit = wiring.max_concurrency
        self._own_slots = anyio.CapacityLimiter(limit or len(wiring.requests))

    async def run(self) -> dict[int, ExecutionResult]:
        """Runs everything, and returns how each command ended."""
        async with (
            background_of_run(self.control, self.executions),
            anyio.create_task_group() as tasks,
        ):
            for index in [index for index, count in enumerate(self._waiting_for) if count == 0]:
                tasks.start_soon(self._run_node, tasks, index)
        return self.results

    async def _run_node(self, tasks: anyio.abc.TaskGroup, index: int) -> None:
        try:
            self.results[index] = await self._settle(index)
            self._add_to_ledger(index)
        except Pause:
            # The next attempt at the run begins with this command.
            self.suspended = True
            return
        except BaseException as error:
            if not is_unforeseen(error):
                raise
            await self._end_despite(index, error)
        for successor in self._wiring.successors[index]:
            self._waiting_for[successor] -= 1
            if self._waiting_for[successor] == 0:
                tasks.start_soon(self._run_node, tasks, successor)

    async def _settle(self, index: int) -> ExecutionResult:
        """Runs the command, or finds out why it doesn't run."""
        earlier = self._earlier.get(index)
        if earlier is not None and earlier.status is ExecutionStatus.COMPLETED:
            if earlier.execution_id == self._id(index):
                # A run that was suspended and resumed goes on with the same attempt.
                return earlier
            state = Completed(name="Cached", message=IN_EARLIER_ATTEMPT, data=earlier)
            await self._record(index, state)
            return earlier
        async with AsyncExitStack() as slots:
            obstacle = self._obstacle(index) or await self._wait_for_slots(index, slots)
            _raise_if_suspended()
            if obstacle is None:
                return await self._run_command(index)
        result = ExecutionResult.not_run(self._request(index), self._execution_id(index), obstacle)
        self._publish(index, result, lambda: result)
        await self._record(index, state_of(result))
        return result

    def _add_to_ledger(self, index: int) -> None:
        if (task_run := self._task_runs.get(index)) is not None:
            self._services.task_runs.add(task_run, routed=self.routed)

    async def _end_despite(self, index: int, error: BaseException) -> None:
        """End a command for which something unforeseen was raised, so that the run goes on."""
        reason = self._note(f"commands[{index}]", error)
        await self._end_with(index, self._result_despite(index, error, reason))

    async def end_all_despite(self, error: BaseException) -> str:
        """End the commands that have no result when something unforeseen ends the run.

        Returns:
            What is to be said of the error.
        """
        reason = self._note("", error)
        for index, request in enumerate(self._wiring.requests):
            if index in self.executions and index not in self.results:
                await self._end_with(index, self._result_despite(index, error, reason))
            elif index not in self.results:
                execution_id = self._execution_id(index)
                result = ExecutionResult.not_run(request, execution_id, f"not run: {reason}")
                await self._end_with(index, result)
        return reason

    async def _end_with(self, index: int, result: ExecutionResult) -> None:
        self.results[index] = result
        with self.noting_errors(f"the result of commands[{index}]"):
            self._publish(index, result, lambda: result)
        with self.noting_errors(f"the state of commands[{index}]"):
            if index not in self._task_runs:
                await self._record(index, state_of(result))
            self._add_to_ledger(index)

    def _result_despite(self, index: int, error: BaseException, reason: str) -> ExecutionResult:
        """Return what is known of a command; how it ended counts, if it has."""
        execution = self.executions.get(index) or self._prepare(index)
        with suppress(Exception):
            ended = execution.result
            execution.result = ended.with_note(reason) if ended else execution.fail(error)
            return execution.result_with_output()
        execution.log = None
        execution.result = result = ExecutionResult.failed(
            execution.request, execution.execution_id, reason
        )
        execution.started_at = result.started_at
        return result

    @contextmanager
    def noting_errors(self, what: str) -> Generator[None]:
        """Let the run go on if something unforeseen is raised inside; its final state says so.

        Args:
            what: What is done inside, in the words of that message.
        """
        try:
            yield
        except BaseException as error:
            if not is_unforeseen(error):
                raise
            self._note(what, error)

    def _note(self, what: str, error: BaseException) -> str:
        logger.error("Run %s, %s: %r", self.flow_run_id, what or "all", error, exc_info=error)
        reason = shown_text(reason_of(error), self._wiring.requests, self._services.config)
        self.add_note(f"{what}: {reason}" if what else reason)
        return reason

    def add_note(self, note: str) -> None:
        """Have the final state's message say something besides how the commands ended."""
        if len(self._notes) < MOST_NOTES and note not in self._notes:
            self._notes.append(note)

    @property
    def note(self) -> str:
        """What the final state's message says besides how the commands ended."""
        return "; ".join(self._notes)

    def _obstacle(self, index: int) -> str | None:
        if self.control.cancelled:
            return COMMAND_CANCELLED if self.is_single else PLAN_CANCELLED
        if self.control.has_cancelled(self._execution_id(index)):
            return COMMAND_CANCELLED
        if not self._wiring.stop_on_failure:
            return None
        for upstream in self._wiring.predecessors[index]:
            result = self.results[upstream]
            if result.status is ExecutionStatus.COMPLETED:
                continue
            if result.started_at is None:
                return result.error
            name = shown_name(self._request(upstream), self._services.config)
            return f"not run: {name} {ENDED[result.status]}"
        return None

    async def _wait_for_slots(self, index: int, slots: AsyncExitStack) -> str | None:
        with self.control.waiting(self._execution_id(index)):
            await slots.enter_async_context(self._own_slots)
            # A single command's flow run is what waits: it stays Pending until there is a slot.
            if not self.is_single:
                await self._services.line.turn(self.flow_run_id)
                await slots.enter_async_context(self._services.slots)
            await slots.enter_async_context(self._services.tag_limits.held(self._id(index)))
        return self._obstacle(index)

    async def _run_command(self, index: int) -> ExecutionResult:
        execution = self._prepare(index)
        run = CommandRun(execution, self.flow_run_id, self._id(index))
        with self.control.running(execution):
            task_run = await run_command_task(run, self._upstream(index), lambda: None)
        self._task_runs[index] = task_run
        if (result := execution.result) is None:
            # Prefect's engine reports what its own parts raise as the state of the task run.
            raise ExecutionError((task_run.state and task_run.state.message) or "no result")
        self._publish(index, result, execution.result_with_output)
        return result

    def _prepare(self, index: int) -> CommandExecution:
        request = self._request(index)
        execution = self.executions[index] = CommandExecution(
            request,
            self._execution_id(index),
            self._services.config,
            directory=self._directory,
            env_from=tuple(dict.fromkeys([*self._env_from, *request.env_from])),
        )
        return execution

    def in_order(self, *, with_output: bool = False) -> list[ExecutionResult]:
        """Returns the results in the plan's order, on demand with what the commands printed."""
        indices = range(len(self._wiring.requests))
        if not with_output:
            return [self.results[index] for index in indices]
        return [self.result_with_output(index) for index in indices]

    def result_with_output(self, index: int) -> ExecutionResult:
        """Return how a command that has ended did, with what it printed if that can be read."""
        if (execution := self.executions.get(index)) is not None:
            with self.noting_errors(f"the output of commands[{index}]"):
                return execution.result_with_output()
        return self.results[index]

    async def _record(self, index: int, state: State[Any]) -> None:
        self._task_runs[index] = await end_command_task(
            self._request(index), self._id(index), self._upstream(index), state
        )

    def _publish(
        self, index: int, result: ExecutionResult, load: Callable[[], ExecutionResult]
    ) -> None:
        execution = self.executions.get(index)
        start = execution.log.start if execution is not None and execution.log else None
        record = ResultRecord(
            flow_run_id=self.flow_run_id, index=index, attempt=self._attempt, result=result
        )
        self._services.publisher.add_result(PendingResult(record, load))
        with self.noting_errors(f"the copy of the result of commands[{index}]"):
            leave_result(record, start)

    def _upstream(self, index: int) -> list[UUID]:
        return [self._id(other) for other in self._wiring.predecessors[index]]

    def _request(self, index: int) -> ExecutionRequest:
        return self._wiring.requests[index]

    def _execution_id(self, index: int) -> UUID:
        return self.flow_run_id if self.is_single else self._id(index)

    def _id(self, index: int) -> UUID:
        return task_run_id(self.flow_run_id, self._attempt, index)


def _raise_if_suspended() -> None:
    """Raise Prefect's `Pause` in a flow run that was suspended, as its task engine does."""
    if (context := FlowRunContext.get()) is not None:
        context.flow_run_suspension_request.raise_if_requested()
