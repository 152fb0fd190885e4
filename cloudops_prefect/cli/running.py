"""Plans and commands run in the foreground: their output, then how they ended."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID

from cloudops_prefect.cli import notes
from cloudops_prefect.cli.arguments import ShownOptions
from cloudops_prefect.cli.following import (
    follow,
    impatient,
    interruptible,
    reason_of_failure,
)
from cloudops_prefect.cli.showing import Showing
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.engine import ExecutionEngine

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionPlan, ExecutionRequest
    from cloudops_prefect.planfile import PlanFile


async def run_plan(
    plan: "ExecutionPlan", options: ShownOptions, file: "PlanFile | None" = None
) -> int:
    """Run a plan to its end and return the exit code.

    Args:
        plan: What to run.
        options: How it is shown.
        file: The file that the plan was read from.
    """
    note = notes.concurrency(plan, ExecutionConfig.load())
    if note and not options.quiet:
        notes.say(note)
    return await _run(Showing(plan, options), lambda engine: engine.execute_plan(plan, file=file))


async def run_command(request: "ExecutionRequest", *, json: bool, quiet: bool) -> int:
    """Runs one command to its end; returns the command's own exit code.

    Args:
        request: What to run.
        json: Whether its result takes the place of its output.
        quiet: Whether nothing is printed beside its output, unless it could not say what happened.
    """
    showing = Showing(request, ShownOptions(json=json), has_ending=json or not quiet)
    return await _run(showing, lambda engine: engine.execute(request))


async def _run(showing: Showing, start: Callable[[ExecutionEngine], Awaitable[UUID]]) -> int:
    with impatient(), interruptible() as interruption:
        async with ExecutionEngine(ExecutionConfig.load()) as engine:
            execution_id = await start(engine)
            async with showing.view.drawn():
                result = await follow(engine, execution_id, showing.view.show, interruption)
            reason = await reason_of_failure(engine, result)
    return showing.end(result, interruption.signal_number, reason)
