"""Commands that look at executions, or end them, whoever runs them."""

from typing import Annotated

from cyclopts import App, Parameter

from cloudops_prefect.cli.arguments import Json, ListOptions, duration, id_text
from cloudops_prefect.cli.root import Id, app, connect, run_async

logs_app = App(name="logs")
app.command(logs_app)

_ALL = ListOptions()


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


@logs_app.default
def logs(
    id_: Id,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), negative="")] = False,
    json: Annotated[Json, Parameter(help="Print JSON; with --follow, one event a line.")] = False,
) -> int:
    """Print what an execution printed.

    Parameters
    ----------
    follow
        Go on until it ends.
    """
    identifier = id_text(id_)
    connect()
    from cloudops_prefect.cli.inspecting import follow_logs, print_logs

    return run_async((follow_logs if follow else print_logs)(identifier, json=json))


@logs_app.command
def prune(
    *,
    older_than: str,
    keep_failed: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Remove the log files of this machine that nothing was written to for a time.

    Logs of what still runs stay. The API keeps its own copy of what was printed.

    Parameters
    ----------
    older_than
        For how long, like 30d or 12h.
    keep_failed
        Leave the logs of what failed or timed out.
    """
    age = duration("--older-than", older_than)
    connect()
    from cloudops_prefect.cli.pruning import prune_logs

    return run_async(prune_logs(age, keep_failed=keep_failed, json=json))


@app.command(name="list", alias="ls")
def list_(*, options: ListOptions = _ALL, json: Json = False) -> int:
    """List executions, the newest first."""
    filters = options.filters()
    connect()
    from cloudops_prefect.cli.inspecting import print_list

    return run_async(print_list(filters, page=options.page, json=json))


@app.command
def cancel(id_: Id, /, *, json: Json = False) -> int:
    """Cancel an execution, wherever it runs."""
    identifier = id_text(id_)
    connect()
    from cloudops_prefect.cli import inspecting

    return run_async(inspecting.cancel(identifier, json=json))
