"""Which runs of this machine are alive: each holds the lock of a file as long as its process lives.

The kernel lets go of a lock when its process dies, however it dies; a pid may be used again. What
the process has written into the file by then, a line each, is there afterwards.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.logfiles import (
    is_still_there,
    open_directory,
    open_locked,
    open_private,
    try_lock,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

SUFFIX = ".alive"
_held: dict[UUID, int] = {}


@dataclass(frozen=True, slots=True)
class Sign:
    """What a run's process leaves on its machine while it lives.

    Attributes:
        attempt: Which attempt at the run it is; a later one may go on somewhere else.
        api_url: The Prefect API that knows the run.
        lines: What it has left besides.
    """

    flow_run_id: UUID
    attempt: int
    api_url: str
    lines: tuple[str, ...] = ()


@contextmanager
def sign_of_life(directory: Path, sign: Sign) -> Generator[None]:
    """Leaves the sign in the directory while this process is inside; without effect if it can't."""
    path = directory / f"{sign.flow_run_id}{SUFFIX}"
    with ExitStack() as files:
        has_left_it = False
        with suppress(ExecutionIOError, OSError):
            directory_fd = open_directory(directory)
            files.callback(os.close, directory_fd)
            fd = open_locked(directory_fd, path)
            _held[sign.flow_run_id] = fd
            files.callback(_let_go, sign.flow_run_id, fd)
            os.ftruncate(fd, 0)
            os.write(fd, f"{sign.attempt} {sign.api_url}".encode())
            has_left_it = True
        yield
        if has_left_it:
            # A sign that stays is one of the dead, and theirs are removed.
            with suppress(OSError):
                path.unlink(missing_ok=True)


def leave_line(flow_run_id: UUID, line: str) -> None:
    """Adds a line to the sign of a run of this process, if it has one and there is room for it."""
    if (fd := _held.get(flow_run_id)) is not None:
        with suppress(OSError):
            os.write(fd, f"\n{line}".encode())


def _let_go(flow_run_id: UUID, fd: int) -> None:
    # In a forked child the number may be another file's by now.
    if _held.pop(flow_run_id, None) is not None:
        os.close(fd)


def _let_go_of_all() -> None:
    """In a forked child: the lock would go on for as long as the child lives."""
    while _held:
        os.close(_held.popitem()[1])


os.register_at_fork(after_in_child=_let_go_of_all)


def signs_of_the_dead(
    directory: Path, api_url: str, flow_run_id: UUID | None = None
) -> Iterator[Sign]:
    """Yields the signs that dead processes have left, and removes each when the next is asked for.

    What somebody else looks at meanwhile is left to them.

    Args:
        directory: Where the signs are.
        api_url: Only those of runs that this API knows.
        flow_run_id: Only that of this run.
    """
    paths = sorted(directory.glob(f"{flow_run_id or '*'}{SUFFIX}"))
    if not paths:
        return
    directory_fd = open_directory(directory)
    try:
        for path in paths:
            if (fd := _lock_of_the_dead(directory_fd, path)) is None:
                continue
            try:
                sign = _read(fd, path)
                if sign is not None and sign.api_url != api_url:
                    continue
                if sign is not None:
                    yield sign
                os.unlink(path.name, dir_fd=directory_fd)
            finally:
                os.close(fd)
    finally:
        os.close(directory_fd)


def _lock_of_the_dead(directory_fd: int, path: Path) -> int | None:
    try:
        fd = open_private(directory_fd, path)
    except ExecutionIOError:
        # Another user's, who shares the directory.
        return None
    # Between the look into the directory and here its run may have ended properly.
    if try_lock(fd) and is_still_there(fd, directory_fd, path.name):
        return fd
    os.close(fd)
    return None


def _read(fd: int, path: Path) -> Sign | None:
    with open(fd, errors="replace", closefd=False) as file:
        head, *lines = file.read().split("\n")
    attempt, _, api_url = head.partition(" ")
    try:
        return Sign(UUID(path.stem), int(attempt), api_url, tuple(lines))
    except ValueError:
        return None
