"""Commands that run something in the foreground."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cloudops_prefect.cli import exit_codes
from cloudops_prefect.cli.arguments import CommandOptions, Plan, ShownOptions, id_text
from cloudops_prefect.cli.root import Id, app, connect, plan_and_warnings, run_async

if TYPE_CHECKING:
    from cloudops_prefect.models import Command

Arguments = Annotated[
    str, Parameter(allow_leading_hyphen=True, help="What else it is given, passed on as it is.")
]

_DEFAULTS = CommandOptions()
_AS_FITS = ShownOptions()


@app.command
def run(
    plan: Plan,
    /,
    *,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    options: ShownOptions = _AS_FITS,
) -> int:
    """Run a plan and show what its commands print.

    Parameters
    ----------
    dry_run
        Print what would run, in order, and start nothing.
    """
    loaded, warnings = plan_and_warnings(plan, json=options.json)
    if dry_run:
        from cloudops_prefect.cli import dry_run as dry

        dry.dry_run(loaded, warnings, json=options.json)
        return exit_codes.COMPLETED
    if warnings and not options.quiet:
        from cloudops_prefect.cli.plan_warnings import print_some_warnings

        print_some_warnings(warnings, plan)
    from cloudops_prefect.planfile import PlanFile

    # Before a server is started, which takes a while: the file may change meanwhile.
    file = PlanFile.read(plan)
    connect()
    from cloudops_prefect.cli.running import run_plan

    return run_async(run_plan(loaded, options, file))


@app.command(name="exec")
def exec_(program: str, /, *args: Arguments, options: CommandOptions = _DEFAULTS) -> int:
    """Run a program with its arguments: cloudops exec [OPTIONS] -- PROGRAM ARGS...

    Its exit code is ours.

    Parameters
    ----------
    program
        A program on the PATH, or a file that can be executed.
    """
    from cloudops_prefect.models import ExecCommand

    return _run_command(ExecCommand(program=program, args=list(args)), options)


@app.command
def shell(command: str, /, *, options: CommandOptions = _DEFAULTS) -> int:
    """Run a line of bash: cloudops shell 'make test | tail'.

    Its exit code is ours.

    Parameters
    ----------
    command
        The line, in quotes.
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
    service
        A service, like s3 or ec2.
    operation
        What it is to do, like ls or describe-instances.
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
def resume(id_: Id, /, *, options: ShownOptions = _AS_FITS) -> int:
    """Run what has not completed of an execution that has ended.

    The plan is the one that was started, even if its file has changed since: to run the file as it
    is now, use `cloudops run`. A local run continues in the directory that it was started in, a
    worker's run in a new temporary one. The environment is not kept: set the variables that the
    commands need again.
    """
    identifier = id_text(id_)
    connect()
    from cloudops_prefect.cli.watching import resume

    return run_async(resume(identifier, options))


@app.command
def watch(id_: Id, /, *, options: ShownOptions = _AS_FITS) -> int:
    """Show an execution until it has ended, wherever it runs; Ctrl-C leaves it running.

    The exit code says how it ended, as that of `run` does.
    """
    identifier = id_text(id_)
    connect()
    from cloudops_prefect.cli.watching import watch

    try:
        return run_async(watch(identifier, options))
    except KeyboardInterrupt:
        return exit_codes.CANCELLED


def _run_command(command: "Command", options: CommandOptions) -> int:
    from cloudops_prefect.config import ExecutionConfig

    request = options.request(command)
    request.validate(ExecutionConfig.load())
    connect()
    from cloudops_prefect.cli.running import run_command

    return run_async(run_command(request, json=options.json, quiet=options.quiet))
