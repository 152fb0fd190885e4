"""PostgreSQL for the tests: one that is named, one that lets us in, or one of the test's own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import asyncpg
import pytest
from servers import free_port

LOCAL = "postgresql://postgres@127.0.0.1:5432/postgres"
# It does not run as root.
USER = "nobody" if os.geteuid() == 0 else None


@contextmanager
def database() -> Iterator[str]:
    """A new database, as the address that Prefect's server takes; it is dropped afterwards."""
    with _server() as url:
        name = f"cloudops_{uuid4().hex}"
        anyio.run(_execute, url, f"CREATE DATABASE {name}")
        try:
            yield urlsplit(url)._replace(scheme="postgresql+asyncpg", path=f"/{name}").geturl()
        finally:
            anyio.run(_execute, url, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _server() -> Iterator[str]:
    if url := os.environ.get("CLOUDOPS_TEST_POSTGRES_URL"):
        yield urlsplit(url)._replace(scheme="postgresql").geturl()
    elif anyio.run(_lets_us_in, LOCAL):
        yield LOCAL
    elif (programs := _programs()) is not None:
        with _of_our_own(programs) as url:
            yield url
    else:
        pytest.skip(
            "no PostgreSQL: CLOUDOPS_TEST_POSTGRES_URL is not set, none lets us in at "
            f"{LOCAL}, and initdb is not installed"
        )


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _lets_us_in(url: str) -> bool:
    with suppress(OSError, TimeoutError, asyncpg.PostgresError):
        await _execute(url, "SELECT 1")
        return True
    return False


def _programs() -> Path | None:
    """Where initdb is and pg_ctl: on PATH, or the newest that Debian has installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(installed, key=lambda path: int(path.parts[-3]), default=None)
    return None if newest is None else newest.parent


@contextmanager
def _of_our_own(programs: Path) -> Iterator[str]:
    # Its user can't look into pytest's directories.
    with TemporaryDirectory(prefix="cloudops-postgres-", dir="/tmp") as directory:
        if USER is not None:
            shutil.chown(directory, USER)
        data, port = Path(directory) / "data", free_port()
        _run(programs / "initdb", "--auth=trust", "--username=postgres", "--no-sync", data)
        options = f"-c port={port} -c listen_addresses=127.0.0.1 -k {directory}"
        log = Path(directory) / "log"
        _run(programs / "pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", options)
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            _run(programs / "pg_ctl", "stop", "-w", "-m", "immediate", "-D", data)


def _run(*argv: str | Path) -> None:
    # Not a pipe: what pg_ctl starts would hold it open.
    subprocess.run(
        [str(argument) for argument in argv],
        user=USER,
        cwd="/",
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
