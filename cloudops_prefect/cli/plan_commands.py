"""Commands about plans as files."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.arguments import Json, Plan
from cloudops_prefect.cli.root import app, connect, plan_and_warnings, run_async
from cloudops_prefect.errors import ValidationError
from cloudops_prefect.shell_words import command_line


@app.command
def init(plan: Path = Path("plan.yaml"), /, *, json: Json = False) -> int:
    """Write a plan to start from, and the schema by which editors complete it.

    What is there already stays.

    Parameters
    ----------
    plan
        The file, plan.yaml if absent.
    """
    from cloudops_prefect.cli import starter

    schema = starter.write(plan)
    if json:
        printing.json_document({"plan": plan, "schema": schema})
    else:
        printing.line(f"Wrote {plan}. Run it with: {command_line('cloudops', 'run', plan)}")
    return exit_codes.COMPLETED


@app.command
def validate(plan: Plan, /, *, json: Json = False) -> int:
    """Check a plan without running it.

    Warnings leave it valid, like one about $HOME where no shell reads it.
    """
    from cloudops_prefect.cli.names import size_of
    from cloudops_prefect.cli.plan_warnings import print_warnings
    from cloudops_prefect.cli.refused import mistake_document

    loaded, warnings = plan_and_warnings(plan, json=json)
    if json:
        documents = [*map(mistake_document, warnings)]
        valid = {"valid": True, "commands": len(loaded.commands), "warnings": documents}
        printing.json_document(valid)
    else:
        print_warnings(warnings)
        printing.line(f"{plan}: valid, {size_of(loaded)}")
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


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print what makes your shell complete: eval "$(cloudops completion bash)".

    That line goes to ~/.bashrc; with `zsh` in place of `bash` to ~/.zshrc, below `compinit`. For
    fish write it to ~/.config/fish/completions/cloudops.fish.

    Parameters
    ----------
    shell
        Which shell.
    """
    from cloudops_prefect.cli import completing

    printing.line(completing.script(shell))
    return exit_codes.COMPLETED


@app.command
def deploy(  # noqa: PLR0913
    plan: Plan,
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

    The same name again changes the deployment; what is not given then is taken back. A worker
    starts commands in a temporary directory, so give each an absolute `working_dir`.

    Parameters
    ----------
    name
        What the deployment is called; in Prefect run-plan/NAME.
    work_pool
        The work pool whose workers run it.
    cron
        When it runs by itself: five fields, like '0 3 * * *', or a name like @daily.
    interval
        How often it runs by itself, like 30m.
    rrule
        When it runs by itself, like 'FREQ=WEEKLY;BYDAY=MO'.
    timezone
        The schedule's time zone, an IANA name like Europe/Berlin; UTC if absent.
    concurrency_limit
        How many runs may be under way at once.
    paused
        Leave the schedule at rest.
    """
    loaded, warnings = plan_and_warnings(plan, json=json)
    connect()
    from cloudops_prefect.cli import deploying

    return run_async(
        deploying.deploy(
            loaded,
            [*map(str, warnings)],
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
