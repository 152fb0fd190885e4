"""The commands of `cloudops server`."""

from typing import TYPE_CHECKING, Literal

from cyclopts import App

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.arguments import Json
from cloudops_prefect.errors import ExecutionError

if TYPE_CHECKING:
    from cloudops_prefect.local_server import LocalServer

server_app = App(name="server", help="Start, stop and look at the local Prefect server.")


@server_app.command
def start(*, json: Json = False) -> int:
    """Start the local Prefect server in the background."""
    from cloudops_prefect import server

    return _print_server(server.start(), json=json)


@server_app.command
def stop(*, json: Json = False) -> int:
    """Stop the local Prefect server; what it knows is kept."""
    from cloudops_prefect import server

    stopped = server.stop()
    if json:
        printing.json_document({"stopped": stopped is not None})
    else:
        printing.line("No local server was running" if stopped is None else "Stopped")
    return exit_codes.COMPLETED


@server_app.command
def status(*, json: Json = False) -> int:
    """Print whether the local Prefect server runs, and where; the exit code is 1 if it does not."""
    from cloudops_prefect.local_server import find_local_server

    return _print_server(find_local_server(), json=json)


@server_app.command
def env(*, shell: Literal["bash", "zsh", "sh", "fish"] = "bash", json: Json = False) -> int:
    """Print the line by which Prefect's own commands find the local server.

    In bash and zsh, run it with: eval "$(cloudops server env)". In fish, run it with:
    cloudops server env --shell fish | source

    Parameters
    ----------
    shell
        The kind of shell that runs the line; bash if absent.
    """
    from cloudops_prefect.local_server import find_local_server

    local = find_local_server()
    if local is None:
        raise ExecutionError("no local server is running; to start it: cloudops server start")
    if json:
        printing.json_document({"PREFECT_API_URL": local.url})
    else:
        # Fish knows `export` too, as a function.
        assignment = "set -gx PREFECT_API_URL " if shell == "fish" else "export PREFECT_API_URL="
        printing.line(f"{assignment}{local.url}")
    return exit_codes.COMPLETED


def _print_server(local: "LocalServer | None", *, json: bool) -> int:
    state = "stopped" if local is None else local.phase
    facts: dict[str, object] = {"status": state}
    if local is not None:
        facts |= {"ui": local.ui_url, "api": local.url, "pid": local.pid, "log": local.log_path}
    if json:
        printing.json_document(facts)
    else:
        for name, value in facts.items():
            printing.line(f"{name + ':':<8}{value}")
    return exit_codes.COMPLETED if state == "running" else exit_codes.FAILED
