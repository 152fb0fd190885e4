"""The commands of `cloudops server`."""

from typing import TYPE_CHECKING

from cyclopts import App

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.arguments import Json

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


def _print_server(local: "LocalServer | None", *, json: bool) -> int:
    state = "stopped" if local is None else "running" if local.healthy else "starting"
    facts: dict[str, object] = {"status": state}
    if local is not None:
        facts |= {"ui": local.ui_url, "api": local.url, "pid": local.pid, "log": local.log_path}
    if json:
        printing.json_document(facts)
    else:
        for name, value in facts.items():
            printing.line(f"{name + ':':<8}{value}")
    return exit_codes.COMPLETED if state == "running" else exit_codes.FAILED
