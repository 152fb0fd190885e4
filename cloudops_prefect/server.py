"""The local Prefect server: one a user, in the background, for those who have configured no API."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from pwd import getpwuid
from typing import cast

from cloudops_prefect.errors import ExecutionError
from cloudops_prefect.local_server import (
    ANSWER_SECONDS,
    DEFAULT_PORT,
    HOST,
    PROCESS_MODULE,
    START_SECONDS,
    LocalServer,
    ServerFiles,
    api_url,
    await_local_server,
    find_local_server,
    is_alive,
    read_state,
    server_files,
    wait_until,
    write_state,
)
from cloudops_prefect.server_settings import DEFAULT_SETTINGS

STOP_SECONDS = 15.0


class LocalServerError(ExecutionError):
    """The local Prefect server could not be started or stopped."""


def start() -> LocalServer:
    """Start the server in the background and wait until its API answers.

    One that already runs is returned as it is; two callers at once get the same one.

    Raises:
        LocalServerError: It ended while it started, or does not answer.
    """
    files = server_files()
    files.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(files)
    with _held(files.home / "cloudops-server.start.lock", START_SECONDS + STOP_SECONDS):
        if not is_alive(files):
            _spawn(files, _choose_port(files))
        elif find_local_server() is None:
            raise LocalServerError(
                f"A local Prefect server that is not on this machine, or not visible here, holds "
                f"{files.lock}: set PREFECT_API_URL to its address, or PREFECT_HOME to a directory "
                "of this machine"
            )
        return _await_answer(files)


def stop() -> LocalServer | None:
    """Stop the server and wait until its process is gone; return the one stopped, if any.

    Raises:
        LocalServerError: The process could not be ended.
    """
    server = find_local_server()
    if server is None:
        return None
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal_number)
        if wait_until(lambda: not is_alive(server_files()), STOP_SECONDS):
            return server
    raise LocalServerError(f"The local Prefect server (process {server.pid}) could not be stopped")


def _check_owner(files: ServerFiles) -> None:
    try:
        owner = files.lock.stat().st_uid
    except FileNotFoundError:
        return
    if owner != os.geteuid():
        raise LocalServerError(
            f"{files.lock} belongs to the local Prefect server of {_user_name(owner)}: set "
            "PREFECT_HOME to a directory of your own, or PREFECT_API_URL to the address of a server"
        )


def _user_name(uid: int) -> str:
    try:
        return f"the user {getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user with the id {uid}"


def _spawn(files: ServerFiles, port: int) -> None:
    """Start the process, which from then on holds the lock that says that it lives."""
    with _held(files.lock, 5) as life_lock, _new_log(files) as log:
        # A reader that sees the lock held must not find the previous process in the state.
        files.state.unlink(missing_ok=True)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                PROCESS_MODULE,
                "server",
                "start",
                f"--host={HOST}",
                f"--port={port}",
            ],
            cwd=files.home,
            env=_environment(files, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[life_lock],
            start_new_session=True,
        )
        write_state(files, {"pid": process.pid, "port": port})


def _environment(files: ServerFiles, port: int) -> dict[str, str]:
    from prefect.settings import get_current_settings

    # The server runs elsewhere, so what the current directory's files say must be handed over.
    own = get_current_settings().to_environment_variables(exclude_unset=True)
    fixed = {
        "PREFECT_API_URL": api_url(port),
        "PREFECT_HOME": str(files.home),
        "PREFECT_SERVER_API_BASE_PATH": "/api",
        "PREFECT_SERVER_UI_API_URL": api_url(port),
        "PREFECT_SERVER_UI_SERVE_BASE": "/",
    }
    inherited = {k: v for k, v in os.environ.items() if k not in _ADDRESSES}
    return {**DEFAULT_SETTINGS, **inherited, **own, **fixed}


# Where another server is, and names that would win over the ones that we set.
_ADDRESSES = {"PREFECT_API_KEY", "PREFECT_UI_API_URL", "PREFECT_UI_URL", "PREFECT_UI_SERVE_BASE"}


def _choose_port(files: ServerFiles) -> int:
    """Return the port of last time, else Prefect's own, else any that is free."""
    state = read_state(files)
    for port in ([state["port"]] if state else []) + [DEFAULT_PORT, 0]:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return cast("int", probe.getsockname()[1])
    raise LocalServerError("No free port for the local Prefect server")


def _await_answer(files: ServerFiles) -> LocalServer:
    server = await_local_server()
    if server is not None and server.healthy:
        return server
    log_end = f"; the end of its log ({files.log}):\n{_log_tail(files)}"
    if server is None:
        raise LocalServerError(f"The local Prefect server ended while it started{log_end}")
    seconds = START_SECONDS if server.phase == "starting" else ANSWER_SECONDS
    raise LocalServerError(
        f"The local Prefect server (process {server.pid}) did not answer in {seconds:.0f} s; to "
        f"end it: cloudops server stop{log_end}"
    )


@contextmanager
def _held(path: Path, wait_seconds: float) -> Generator[int]:
    """Hold an exclusive lock; a child that inherits the descriptor goes on holding it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not wait_until(lambda: _try_lock(descriptor), wait_seconds):
            raise LocalServerError(f"Another process has held {path} for {wait_seconds:.0f} s")
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _new_log(files: ServerFiles) -> Generator[int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(files.log, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _log_tail(files: ServerFiles, lines: int = 15) -> str:
    text = files.log.read_text(errors="replace")
    return "\n".join(line for line in text.splitlines()[-lines:] if line.strip())
