"""The temporary server that Prefect starts for a process without a configured API.

As Prefect starts it, it stands still for a minute, again and again, once a few executions go on at
the same time (`server_process` says why), and it outlives a process that is killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from prefect.settings import get_current_settings

from cloudops_prefect.prefect_internals import replace_server_command
from cloudops_prefect.server_settings import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

COMMAND = "ephemeral"
"""What `server_process` is told to be such a server, before its port and whom it belongs to."""
# By these Prefect's application knows what it is, and that nobody looks at its pages.
_MARKS = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


def start_ephemeral_servers_well() -> None:
    """Has Prefect start our server in place of its own, in a process without a configured API."""
    if get_current_settings().api.url is not None:
        return
    # Takes seconds, and is imported by Prefect's client only where there is no API either.
    from prefect.server.api.server import SubprocessASGIServer

    replace_server_command(SubprocessASGIServer, _start)


def _start(server: SubprocessASGIServer) -> subprocess.Popen[bytes]:
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    module = "cloudops_prefect.server_process"
    return subprocess.Popen(
        [sys.executable, "-m", module, COMMAND, str(server.port), str(os.getpid())],
        env={**DEFAULT_SETTINGS, **os.environ, **_MARKS, **settings},
    )
