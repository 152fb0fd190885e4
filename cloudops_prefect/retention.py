"""Removing logs that are old."""

from __future__ import annotations

import os
import stat
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from cloudops_prefect import liveness
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.journal import INDEX_SUFFIX
from cloudops_prefect.logfiles import try_lock

if TYPE_CHECKING:
    from collections.abc import Container, Generator, Iterator
    from datetime import timedelta

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SUFFIXES = frozenset({".log", INDEX_SUFFIX, liveness.SUFFIX})


class Pruned(NamedTuple):
    """What `prune` has removed."""

    executions: list[UUID]
    """Whose logs, in the order of their ids."""
    size: int
    """How many bytes were in them."""


def old_executions(log_dir: Path, older_than: timedelta) -> list[UUID]:
    """Return the executions whose logs `prune` would remove, but for those being written.

    So that their statuses can be asked for all at once, before any log is gone.

    Raises:
        ExecutionIOError: The directory can't be read.
    """
    with _opened(log_dir) as directory:
        if directory is None:
            return []
        return [one for one, _ in _old_files(directory, _moment(older_than))]


def prune(log_dir: Path, older_than: timedelta, *, only: Container[UUID] | None = None) -> Pruned:
    """Remove the logs that nothing was written to for a time; never one that is being written.

    Args:
        log_dir: The directory of the log files; it may be missing.
        older_than: How old the newest of an execution's files must be.
        only: Executions whose logs may go, all of them if absent.

    Raises:
        ExecutionIOError: The directory can't be read, or a file in it can't be removed.
    """
    pruned: list[UUID] = []
    size = 0
    with _opened(log_dir) as directory:
        if directory is None:
            return Pruned([], 0)
        before_ns = _moment(older_than)
        for execution_id, names in _old_files(directory, before_ns):
            if only is not None and execution_id not in only:
                continue
            removed = _remove_unless_held(directory, names, before_ns)
            if removed is not None:
                pruned.append(execution_id)
                size += removed
    return Pruned(pruned, size)


@contextmanager
def _opened(log_dir: Path) -> Generator[int | None]:
    try:
        directory = os.open(log_dir, _DIRECTORY_FLAGS)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise ExecutionIOError(f"log directory {log_dir}: {error.strerror}") from error
    try:
        yield directory
    except OSError as error:
        raise ExecutionIOError(f"can't prune {log_dir}: {error.strerror}") from error
    finally:
        os.close(directory)


def _moment(ago: timedelta) -> int:
    return time.time_ns() - int(ago.total_seconds() * 1e9)


def _old_files(directory: int, before_ns: int) -> Iterator[tuple[UUID, list[str]]]:
    for execution_id, names in sorted(_files_by_execution(directory).items()):
        if _is_older(directory, names, before_ns):
            yield execution_id, names


def _files_by_execution(directory: int) -> dict[UUID, list[str]]:
    found: dict[UUID, list[str]] = defaultdict(list)
    for name in sorted(os.listdir(directory)):
        if (execution_id := _whose(Path(name))) is not None:
            found[execution_id].append(name)
    return found


def _whose(path: Path) -> UUID | None:
    """Return the execution whose file it is, None for a file that isn't ours."""
    if path.suffix not in _SUFFIXES:
        return None
    try:
        execution_id = UUID(path.stem)
    except ValueError:
        return None
    # Ours are written in one way only, of all that a UUID can be read from.
    return execution_id if str(execution_id) == path.stem else None


def _is_older(directory: int, names: list[str], before_ns: int) -> bool:
    for name in names:
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if not is_ours or found.st_mtime_ns >= before_ns:
            return False
    return True


def _remove_unless_held(directory: int, names: list[str], before_ns: int) -> int | None:
    """Return how many bytes were removed, None if nothing was as somebody holds one of the files.

    A log is held by who writes it, a sign of life by the process that it tells of.
    """
    with ExitStack() as files:
        try:
            held = [not try_lock(_opened_file(files, directory, name)) for name in names]
        except FileNotFoundError:
            # Somebody else removes them.
            return None
        # Looked at again with the locks, because the execution may just have been started anew.
        if any(held) or not _is_older(directory, names, before_ns):
            return None
        size = 0
        for name in names:
            size += os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
            os.unlink(name, dir_fd=directory)
        return size


def _opened_file(files: ExitStack, directory: int, name: str) -> int:
    fd = os.open(name, _FILE_FLAGS, dir_fd=directory)
    files.callback(os.close, fd)
    return fd
