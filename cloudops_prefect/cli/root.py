"""The program `cloudops` that the commands register on, and what several of them need."""

import gc
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionPlan

Id = Annotated[str, Parameter(name="ID")]


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


def connect() -> str | None:
    """Makes sure that there is an API to talk to; returns its address if none is configured."""
    from cloudops_prefect.cli import connection

    return connection.connect()


def valid_plan(path: Path) -> "ExecutionPlan":
    """Reads a plan that may run.

    Raises:
        ValidationError: It is refused.
    """
    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.planfile import load_plan

    plan = load_plan(path)
    plan.validate(ExecutionConfig.load())
    return plan
