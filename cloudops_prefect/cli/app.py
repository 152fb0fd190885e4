"""The commands of `cloudops` and the errors that they end in."""

import sys
from collections.abc import Coroutine, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cyclopts import App, CycloptsError, Parameter

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.arguments import CommandOptions, Json, Quiet, execution_id, verbatim
from cloudops_prefect.cli.server_app import server_app
from cloudops_prefect.errors import ExecutionError, ValidationError

if TYPE_CHECKING:
    from cloudops_prefect.models import Command

Status = Literal["pending", "running", "completed", "failed", "cancelled", "timeout"]
Id = Annotated[str, Parameter(name="ID")]
Arguments = Annotated[str, Parameter(allow_leading_hyphen=True)]

_DEFAULTS = CommandOptions()


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
app.command(server_app)


@app.command
def run(plan: Path, /, *, json: Json = False, quiet: Quiet = False) -> int:
    """Run a plan and show what its commands print.

    Parameters
    ----------
    plan
        A YAML or JSON file.
    json
        Print the result as JSON in place of the output.
    quiet
        Print the summary only.
    """
    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.planfile import load_plan

    loaded = load_plan(plan)
    loaded.validate(ExecutionConfig.load())
    _connect()
    from cloudops_prefect.cli.running import run_plan

    return _run(run_plan(loaded, json=json, quiet=quiet))


@app.command(name="exec")
def exec_(program: str, /, *args: Arguments, options: CommandOptions = _DEFAULTS) -> int:
    """Run a program with its arguments: cloudops exec [OPTIONS] -- PROGRAM ARGS...

    Its exit code is ours.
    """
    from cloudops_prefect.models import ExecCommand

    return _run_command(ExecCommand(program=program, args=list(args)), options)


@app.command
def shell(command: str, /, *, options: CommandOptions = _DEFAULTS) -> int:
    """Run a line of bash: cloudops shell 'make test | tail'.

    Its exit code is ours.
    """
    from cloudops_prefect.models import ShellCommand

    return _run_command(ShellCommand(command=command), options)


@app.command
def aws(
    service: str,
    operation: str,
    /,
    *args: Arguments,
    profile: str | None = None,
    region: str | None = None,
    options: CommandOptions = _DEFAULTS,
) -> int:
    """Run the AWS CLI: cloudops aws [OPTIONS] s3 ls --recursive.

    What follows the service goes to the AWS CLI as it is. Its exit code is ours.

    Parameters
    ----------
    profile
        The profile of the AWS configuration.
    region
        The region, like eu-central-1.
    """
    from cloudops_prefect.models import AwsCliCommand

    command = AwsCliCommand(
        service=service, operation=operation, args=list(args), profile=profile, region=region
    )
    return _run_command(command, options)


@app.command
def status(id_: Id, /, *, json: Json = False) -> int:
    """Print where an execution stands."""
    identifier = execution_id(id_)
    _connect()
    from cloudops_prefect.cli.inspecting import print_status

    return _run(print_status(identifier, json=json))


@app.command
def result(id_: Id, /, *, json: Json = False) -> int:
    """Print how an execution ended."""
    identifier = execution_id(id_)
    _connect()
    from cloudops_prefect.cli.inspecting import print_result

    return _run(print_result(identifier, json=json))


@app.command
def logs(
    id_: Id,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), negative="")] = False,
    json: Json = False,
) -> int:
    """Print what an execution printed.

    Parameters
    ----------
    follow
        Go on until it ends.
    json
        Print JSON; with --follow, one event a line.
    """
    identifier = execution_id(id_)
    _connect()
    from cloudops_prefect.cli.inspecting import follow_logs, print_logs

    return _run((follow_logs if follow else print_logs)(identifier, json=json))


@app.command(name="list")
def list_(*, limit: int = 20, status: Status | None = None, json: Json = False) -> int:
    """List executions, the newest first.

    Parameters
    ----------
    limit
        How many at most.
    status
        Only those that stand there.
    """
    _connect()
    from cloudops_prefect.cli.inspecting import print_list

    return _run(print_list(limit=limit, status=status, json=json))


@app.command
def cancel(id_: Id, /, *, json: Json = False) -> int:
    """Cancel an execution, wherever it runs."""
    identifier = execution_id(id_)
    _connect()
    from cloudops_prefect.cli import inspecting

    return _run(inspecting.cancel(identifier, json=json))


@app.command
def resume(id_: Id, /, *, json: Json = False, quiet: Quiet = False) -> int:
    """Run again what has not completed of an execution."""
    identifier = execution_id(id_)
    _connect()
    from cloudops_prefect.cli import running

    return _run(running.resume(identifier, json=json, quiet=quiet))


@app.command
def deploy(  # noqa: PLR0913
    plan: Path,
    /,
    *,
    name: str,
    work_pool: str,
    cron: str | None = None,
    interval: str | None = None,
    rrule: str | None = None,
    timezone: str | None = None,
    concurrency_limit: int | None = None,
    paused: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Make a plan a deployment, which runs on schedule, from the UI and by name.

    The same name again changes the deployment; what is not given then is taken back.

    Parameters
    ----------
    plan
        A YAML or JSON file.
    name
        What the deployment is called; in Prefect run-plan/NAME.
    work_pool
        The work pool whose workers run it.
    cron
        When it runs by itself, like '0 3 * * *'.
    interval
        How often it runs by itself, like 30m.
    rrule
        When it runs by itself, like 'FREQ=WEEKLY;BYDAY=MO'.
    timezone
        The schedule's, like Europe/Berlin; UTC if absent.
    concurrency_limit
        How many runs may be under way at once.
    paused
        Leave the schedule at rest.
    """
    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.planfile import load_plan

    loaded = load_plan(plan)
    loaded.validate(ExecutionConfig.load())
    _connect()
    from cloudops_prefect.cli import deploying

    return _run(
        deploying.deploy(
            loaded,
            json=json,
            name=name,
            work_pool=work_pool,
            cron=cron,
            interval=interval,
            rrule=rrule,
            timezone=timezone,
            concurrency_limit=concurrency_limit,
            paused=paused,
        )
    )


@app.command
def validate(plan: Path, /, *, json: Json = False) -> int:
    """Check a plan without running it.

    Parameters
    ----------
    plan
        A YAML or JSON file.
    """
    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.planfile import load_plan

    try:
        loaded = load_plan(plan)
        loaded.validate(ExecutionConfig.load())
    except ValidationError as error:
        if not json:
            raise
        printing.json_document({"valid": False, "error": str(error)})
        return exit_codes.BAD_INPUT
    if json:
        printing.json_document({"valid": True, "commands": len(loaded.commands)})
    else:
        kind = loaded.strategy.type.replace("_", " ")
        printing.line(f"{plan}: valid, {len(loaded.commands)} commands, {kind}")
    return exit_codes.COMPLETED


@app.command
def schema(
    *,
    plan: Annotated[bool, Parameter(negative="")] = False,
    request: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Print the JSON Schema of plans or of requests.

    Parameters
    ----------
    plan
        That of plans, the default.
    request
        That of requests.
    """
    from cloudops_prefect.planfile import json_schema

    if plan and request:
        raise ValidationError("--plan and --request exclude each other")
    printing.json_document(json_schema("request" if request else "plan"))
    return exit_codes.COMPLETED


def _run_command(command: "Command", options: CommandOptions) -> int:
    from cloudops_prefect.config import ExecutionConfig

    request = options.request(command)
    request.validate(ExecutionConfig.load())
    _connect()
    from cloudops_prefect.cli.running import run_command

    return _run(run_command(request, json=options.json, quiet=options.quiet))


def _run(coroutine: Coroutine[Any, Any, int]) -> int:
    import asyncio

    return asyncio.run(coroutine)


def _connect() -> None:
    from cloudops_prefect.cli.connection import connect

    connect()


def main() -> None:
    """Runs what the command line says and exits with the code that says how it went."""
    if isinstance(sys.stdout, TextIOWrapper):
        cast("TextIOWrapper[Any]", sys.stdout).reconfigure(errors="backslashreplace")
    sys.exit(run_tokens(sys.argv[1:]))


def run_tokens(tokens: Sequence[str]) -> int:
    """Runs one command line; returns its exit code.

    Errors that people can do something about become one line on standard error.
    """
    try:
        return app(verbatim(tokens)) or exit_codes.COMPLETED
    except KeyboardInterrupt:
        return exit_codes.CANCELLED
    except Exception as error:
        cause = _cause(error)
        if (complaint := _complaint(cause)) is None:
            raise
        printing.error_line(f"error: {complaint}")
        bad_input = isinstance(cause, (CycloptsError, ValidationError))
        return exit_codes.BAD_INPUT if bad_input else exit_codes.FAILED


def _cause(error: Exception) -> Exception:
    """What a task group has wrapped."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error


def _complaint(error: Exception) -> str | None:
    """What to tell the user; None if only a traceback can."""
    if isinstance(error, (CycloptsError, ExecutionError)):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None
