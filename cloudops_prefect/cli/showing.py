"""An execution as it is shown from its beginning to its exit code."""

from typing import TYPE_CHECKING

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.api import ui_url
from cloudops_prefect.cli.names import command_names
from cloudops_prefect.cli.summary import STOPPED, plan_summary
from cloudops_prefect.cli.views import view_of
from cloudops_prefect.models import ExecutionPlan, ExecutionResult, PlanExecutionResult
from cloudops_prefect.naming import api_credentials

if TYPE_CHECKING:
    from cloudops_prefect.cli.arguments import ShownOptions
    from cloudops_prefect.models import ExecutionRequest


class Showing:
    """How an execution is shown: its view while it goes on, and its ending.

    Args:
        item: What is executed.
        options: What is wanted of it.
        in_plan: Whether it is one command of a plan.
        has_ending: Whether how it ended is told in words even where a command's exit code says it.
    """

    def __init__(
        self,
        item: "ExecutionPlan | ExecutionRequest",
        options: "ShownOptions",
        *,
        in_plan: bool = False,
        has_ending: bool = True,
    ) -> None:
        is_plan = isinstance(item, ExecutionPlan)
        self._names = command_names(item, api_credentials()) if is_plan else []
        self._json = options.json
        self._in_plan = in_plan
        self._has_ending = has_ending
        self.view = view_of(item, self._names, options)

    def end(
        self,
        result: ExecutionResult | PlanExecutionResult,
        signal_number: int | None = None,
        reason: str | None = None,
    ) -> int:
        """Prints how it ended; returns the exit code that says so.

        Args:
            result: How it ended.
            signal_number: The signal that made us cancel it, if one did.
            reason: Why it failed, if the result does not say it.
        """
        if self._json:
            printing.json_document(result)
        elif self._has_ending:
            self._print_ending(result, reason)
        elif isinstance(result, ExecutionResult) and not exit_codes.says_all(result):
            _print_command_ending(result)
        if isinstance(result, PlanExecutionResult):
            return exit_codes.of_status(result.status, signal_number)
        return exit_codes.of_command(result, signal_number)

    def _print_ending(
        self, result: ExecutionResult | PlanExecutionResult, reason: str | None
    ) -> None:
        address = f"UI: {ui_url(result.execution_id, in_plan=self._in_plan)}"
        if isinstance(result, PlanExecutionResult):
            plan_summary(result, self._names, reason)
            printing.line(address)
            return
        _print_command_ending(result)
        printing.error_line(address)


def _print_command_ending(result: ExecutionResult) -> None:
    # Standard output is the command's own.
    how = f": {result.error}" if result.error else f" in {printing.seconds(result.duration)}"
    printing.error_line(f"{result.status.value}{how}")
    for leftover in result.leftovers:
        printing.error_line(f"{STOPPED} {leftover}")
