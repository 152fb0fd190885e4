"""Removing logs that are old."""

from __future__ import annotations

import os
import stat
import time
from collections import defaultdict
from typing import TYPE_CHECKING
from uuid import UUID

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.logfiles import try_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from pathlib import Path

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOG_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_UUID_LENGTH = 36


def prune(log_dir: Path, older_than: timedelta, *, keep: Callable[[UUID], bool]) -> list[Path]:
    """Remove the logs that nothing was written to for a time; never one that is being written.

    Args:
        log_dir: The directory of the log files; it may be missing.
        older_than: How old the newest of an execution's files must be.
        keep: Called with the id of each execution that is old enough: whether to leave it alone.

    Returns:
        The files that were removed, in the order of their names.

    Raises:
        ExecutionIOError: The directory can't be read, or a file in it can't be removed.
    """
    try:
        directory = os.open(log_dir, _DIRECTORY_FLAGS)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ExecutionIOError(f"log directory {log_dir}: {error.strerror}") from error
    try:
        before_ns = time.time_ns() - int(older_than.total_seconds() * 1e9)
        removed: list[str] = []
        for execution_id, names in sorted(_files_by_execution(directory).items()):
            if _is_older(directory, names, before_ns) and not keep(execution_id):
                removed += _remove_unless_open(directory, execution_id, names, before_ns)
    except OSError as error:
        raise ExecutionIOError(f"can't prune {log_dir}: {error.strerror}") from error
    finally:
        os.close(directory)
    return [log_dir / name for name in removed]


def _files_by_execution(directory: int) -> dict[UUID, list[str]]:
    found: dict[UUID, list[str]] = defaultdict(list)
    for name in sorted(os.listdir(directory)):
        stem, dot, _ = name.partition(".")
        if dot and len(stem) == _UUID_LENGTH:
            try:
                found[UUID(stem)].append(name)
            except ValueError:
                continue
    return found


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


def _remove_unless_open(
    directory: int, execution_id: UUID, names: list[str], before_ns: int
) -> list[str]:
    log = _open_log(directory, execution_id)
    try:
        # Looked at again with the lock held, because the execution may just have been started anew.
        if log is not None and not (try_lock(log) and _is_older(directory, names, before_ns)):
            return []
        for name in names:
            os.unlink(name, dir_fd=directory)
        return names
    finally:
        if log is not None:
            os.close(log)


def _open_log(directory: int, execution_id: UUID) -> int | None:
    try:
        return os.open(f"{execution_id}.log", _LOG_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return None
