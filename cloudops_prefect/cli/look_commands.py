"""Commands that look at executions, or end them, whoever runs them."""

from typing import Annotated, Literal

from cyclopts import Parameter

from cloudops_prefect.cli.arguments import Json, id_text
from cloudops_prefect.cli.root import Id, app, connect, run_async

Status = Literal["pending", "running", "completed", "failed", "cancelled", "timeout"]


@app.command
def status(id_: Id, /, *, json: Json = False) -> int:
    """Print where an execution stands."""
    identifier = id_text(id_)
    connect()
    from cloudops_prefect.cli.inspecting import print_status

    return run_async(print_status(identifier, json=json))


@app.command
def result(id_: Id, /, *, json: Json = False) -> int:
    """Print how an execution ended."""
    identifier = id_text(id_)
    connect()
    from cloudops_prefect.cli.inspecting import print_result

    return run_async(print_result(identifier, json=json))


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
    identifier = id_text(id_)
    connect()
    from cloudops_prefect.cli.inspecting import follow_logs, print_logs

    return run_async((follow_logs if follow else print_logs)(identifier, json=json))


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
    connect()
    from cloudops_prefect.cli.inspecting import print_list

    return run_async(print_list(limit=limit, status=status, json=json))


@app.command
def cancel(id_: Id, /, *, json: Json = False) -> int:
    """Cancel an execution, wherever it runs."""
    identifier = id_text(id_)
    connect()
    from cloudops_prefect.cli import inspecting

    return run_async(inspecting.cancel(identifier, json=json))
