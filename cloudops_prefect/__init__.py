"""Run operations commands and plans as Prefect flows: streamed, stoppable, traceable.

Every public name is here, and is imported from its module once it is used: types and errors don't
cost the import of Prefect.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError(
        "cloudops_prefect needs Linux or macOS: it stops commands by POSIX sessions and signals, "
        "which Windows doesn't have. The Windows Subsystem for Linux (WSL 2) will do."
    )

if TYPE_CHECKING:
    from cloudops_prefect.blocks import (
        CommandEnvironment,
        ExecutionConfigBlock,
        ExecutionPlanBlock,
    )
    from cloudops_prefect.compilation import compile_plan
    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.deployed_runs import Deployments
    from cloudops_prefect.deployments import deploy_plan
    from cloudops_prefect.engine import ExecutionEngine
    from cloudops_prefect.errors import (
        CommandFailedError,
        ExecutionCancelledError,
        ExecutionError,
        ExecutionIOError,
        ExecutionNotCompletedError,
        ExecutionNotFoundError,
        ExecutionNotRunningError,
        ExecutionTimeoutError,
        InvalidCommandError,
        InvalidPlanError,
        InvalidWorkingDirError,
        MissingFieldError,
        ScriptNotFoundError,
        SerializationError,
        SpawnFailedError,
        TimeoutTooLargeError,
        ValidationError,
    )
    from cloudops_prefect.events import (
        ConsoleHandler,
        EventHandler,
        FanOutHandler,
        JsonLinesHandler,
        NotificationHandler,
    )
    from cloudops_prefect.flows import run_command, run_plan
    from cloudops_prefect.graph import plan_graph
    from cloudops_prefect.models import (
        AwsCliCommand,
        CancelledEvent,
        Command,
        CommandExecutionId,
        CompletedEvent,
        DependencyGraphStrategy,
        ExecCommand,
        ExecutionEvent,
        ExecutionMetadata,
        ExecutionPlan,
        ExecutionRequest,
        ExecutionResult,
        ExecutionStats,
        ExecutionStatus,
        ExecutionStrategy,
        ExecutionSummary,
        FailedEvent,
        ParallelStrategy,
        PlanExecutionId,
        PlanExecutionResult,
        ProgressEvent,
        ScriptCommand,
        SerialStrategy,
        ShellCommand,
        StartedEvent,
        StderrEvent,
        StdoutEvent,
        UnfinishedLine,
    )
    from cloudops_prefect.planfile import PlanFile, json_schema, load_plan, load_request
    from cloudops_prefect.tasks import run_aws_cli, run_exec, run_script, run_shell

    __version__: str

__all__ = [
    "ExecutionEngine",
    "Deployments",
    "ExecutionConfig",
    "Command",
    "ScriptCommand",
    "ExecCommand",
    "ShellCommand",
    "AwsCliCommand",
    "ExecutionRequest",
    "ExecutionMetadata",
    "ExecutionPlan",
    "ExecutionStrategy",
    "SerialStrategy",
    "ParallelStrategy",
    "DependencyGraphStrategy",
    "CommandExecutionId",
    "PlanExecutionId",
    "ExecutionStatus",
    "ExecutionResult",
    "PlanExecutionResult",
    "ExecutionStats",
    "ExecutionSummary",
    "ExecutionEvent",
    "StartedEvent",
    "StdoutEvent",
    "StderrEvent",
    "CompletedEvent",
    "FailedEvent",
    "CancelledEvent",
    "ProgressEvent",
    "UnfinishedLine",
    "EventHandler",
    "ConsoleHandler",
    "JsonLinesHandler",
    "FanOutHandler",
    "NotificationHandler",
    "compile_plan",
    "run_plan",
    "run_command",
    "run_script",
    "run_exec",
    "run_shell",
    "run_aws_cli",
    "load_plan",
    "load_request",
    "PlanFile",
    "json_schema",
    "plan_graph",
    "deploy_plan",
    "CommandEnvironment",
    "ExecutionConfigBlock",
    "ExecutionPlanBlock",
    "ExecutionError",
    "ValidationError",
    "InvalidCommandError",
    "ScriptNotFoundError",
    "TimeoutTooLargeError",
    "InvalidWorkingDirError",
    "MissingFieldError",
    "InvalidPlanError",
    "ExecutionNotFoundError",
    "ExecutionTimeoutError",
    "ExecutionCancelledError",
    "CommandFailedError",
    "SpawnFailedError",
    "ExecutionIOError",
    "SerializationError",
    "ExecutionNotCompletedError",
    "ExecutionNotRunningError",
    "__version__",
]

_NAMES_BY_MODULE = {
    "blocks": "CommandEnvironment ExecutionConfigBlock ExecutionPlanBlock",
    "compilation": "compile_plan",
    "config": "ExecutionConfig",
    "deployed_runs": "Deployments",
    "deployments": "deploy_plan",
    "engine": "ExecutionEngine",
    "events": "ConsoleHandler EventHandler FanOutHandler JsonLinesHandler NotificationHandler",
    "flows": "run_command run_plan",
    "graph": "plan_graph",
    "planfile": "PlanFile json_schema load_plan load_request",
    "tasks": "run_aws_cli run_exec run_script run_shell",
}


def _module_of(name: str) -> str:
    for module, names in _NAMES_BY_MODULE.items():
        if name in names.split():
            return module
    return "errors" if name.endswith("Error") else "models"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value = version("cloudops-prefect")
    elif name in __all__:
        value = getattr(_imported(f"{__name__}.{_module_of(name)}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _imported(module: str) -> Any:
    from cloudops_prefect.home_directory import check_home_directory

    try:
        return import_module(module)
    except RuntimeError:
        check_home_directory()
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
