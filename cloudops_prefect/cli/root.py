"""The program `cloudops` that the commands register on, and what several of them need."""

import gc
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from cloudops_prefect.cli.refused import RefusedPlanError
from cloudops_prefect.errors import ValidationError

if TYPE_CHECKING:
    from cloudops_prefect.mistakes import Mistake
    from cloudops_prefect.models import ExecutionPlan

Id = Annotated[
    Literal["last"] | str,  # noqa: PYI051 (a literal is what shells complete)
    Parameter(
        name="ID",
        help="An execution: its id, as much of it as makes it unique, or `last`, the newest run.",
        show_choices=False,
    ),
]


def _version() -> str:
    from cloudops_prefect import __version__

    return __version__


app = App(
    name="cloudops",
    help="Run operations commands and plans as Prefect flows: streamed, stoppable, traceable.",
    version=_version,
    default_parameter=Parameter(show_default=False),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
)


def run_async(coroutine: Coroutine[Any, Any, int]) -> int:
    """Runs a coroutine that gives an exit code."""
    import asyncio

    # `main` has disabled it for the imports, which are done.
    gc.freeze()
    gc.enable()
    return asyncio.run(coroutine)


def connect() -> None:
    """Makes sure that there is an API to talk to."""
    from cloudops_prefect.cli import connection

    connection.connect()


def valid_plan(path: Path, *, json: bool) -> "ExecutionPlan":
    """Reads a plan that may run.

    Args:
        path: Its file.
        json: Whether its mistakes are told in JSON.

    Raises:
        RefusedPlanError: It may not.
    """
    plan, _ = plan_and_warnings(path, json=json)
    return plan


def plan_and_warnings(path: Path, *, json: bool) -> "tuple[ExecutionPlan, list[Mistake]]":
    """Read a plan that may run, and what it may not mean as it is written, without secrets.

    Args:
        path: The plan's file.
        json: Whether mistakes are printed as JSON.

    Raises:
        RefusedPlanError: The plan can't run.
    """
    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.planfile import load_plan_and_warnings

    config = ExecutionConfig.load()
    try:
        plan, warnings = load_plan_and_warnings(path, config)
    except ValidationError as refusal:
        raise RefusedPlanError(path, refusal, json=json) from refusal
    if warnings:
        from cloudops_prefect.cli.plan_warnings import without_secrets

        warnings = without_secrets(warnings, plan, config)
    return plan, warnings
