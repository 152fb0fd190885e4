"""Opening the files of a log so that nobody else reads, plants or holds them."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from typing import TYPE_CHECKING

from cloudops_prefect.config import default_log_dir
from cloudops_prefect.errors import ExecutionIOError

if TYPE_CHECKING:
    from pathlib import Path

_FILE_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOCK_TRIES = 20
_LOCK_PAUSE = 0.01


def open_directory(directory: Path) -> int:
    """Open the directory of log files, made with rights 0700 if it isn't there.

    A directory that exists keeps its rights, except the default one in the temporary directory,
    which everybody can write to: that one is narrowed to 0700.

    Returns:
        A file descriptor, so that what was checked is what is used.

    Raises:
        ExecutionIOError: It isn't a directory, can't be made, or it or the symbolic link that leads
            to it belongs to somebody other than the user or root.
    """
    try:
        _refuse_owner(directory, _made(directory))
        fd = os.open(directory, _DIRECTORY_FLAGS)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise ExecutionIOError(f"log directory {directory} is not a directory") from error
    except OSError as error:
        raise ExecutionIOError(f"log directory {directory}: {error.strerror}") from error
    try:
        _check_directory(directory, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _made(directory: Path) -> os.stat_result:
    try:
        return directory.lstat()
    except FileNotFoundError:
        directory.parent.mkdir(parents=True, exist_ok=True)
        # The race of two first executions is none: whoever comes second finds it made.
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory.lstat()


def _check_directory(directory: Path, fd: int) -> None:
    found = os.fstat(fd)
    _refuse_owner(directory, found)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ExecutionIOError(f"log directory {directory} is not writable")
    if directory.absolute() != default_log_dir():
        return
    if found.st_uid != os.geteuid():
        raise ExecutionIOError(
            f"log directory {directory} belongs to {_owner(found)}; set CLOUDOPS_LOG_DIR to another"
        )
    if found.st_mode & 0o077:
        os.fchmod(fd, 0o700)


def _refuse_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid in {os.geteuid(), 0}:
        return
    what = "is a symbolic link that belongs" if stat.S_ISLNK(found.st_mode) else "belongs"
    raise ExecutionIOError(
        f"log directory {path} {what} to {_owner(found)}; set CLOUDOPS_LOG_DIR to another"
    )


def _owner(found: os.stat_result) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(found.st_uid).pw_name}"
    except KeyError:
        return f"user {found.st_uid}"


def open_private(directory_fd: int, path: Path) -> int:
    """Open a file of ours for appending, with rights 0600, made if it isn't there.

    Raises:
        ExecutionIOError: It can't be opened, is a symbolic link or no plain file, or isn't ours.
    """
    try:
        fd = os.open(path.name, _FILE_FLAGS, 0o600, dir_fd=directory_fd)
    except OSError as error:
        raise ExecutionIOError(f"log file {path}: {error.strerror}") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(fd)
        raise ExecutionIOError(f"log file {path} is not a file of ours")
    if found.st_mode & 0o177:
        os.fchmod(fd, 0o600)
    return fd


def open_locked(directory_fd: int, path: Path) -> int:
    """Open a file as `open_private` does and take the lock that says that it is being written.

    Raises:
        ExecutionIOError: As there, or somebody else is writing it.
    """
    for _ in range(_LOCK_TRIES):
        fd = open_private(directory_fd, path)
        if try_lock(fd) and is_still_there(fd, directory_fd, path.name):
            return fd
        # Whoever prunes holds the lock for the moment that it takes to look at the file's age.
        os.close(fd)
        time.sleep(_LOCK_PAUSE)
    raise ExecutionIOError(f"log file {path} is being written by another execution")


def try_lock(fd: int) -> bool:
    """Lock an open file for its writer, unless somebody else holds the lock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_still_there(fd: int, directory_fd: int, name: str) -> bool:
    """Whether the open file has not been removed since, or replaced by another."""
    try:
        named = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))


def is_here(path: Path) -> bool:
    """Whether a log is on this machine, and not another user's that we may not read."""
    return os.access(path, os.R_OK)


def open_plain(path: Path) -> int:
    """Open a file of ours for reading, never following a symbolic link or waiting for a FIFO.

    Raises:
        OSError: It can't be opened.
    """
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def open_copy(path: Path, log_fds: list[int]) -> int:
    """Open a file of the user's for a second copy, emptied, made with rights 0600 if need be.

    Missing directories are made. What isn't a plain file, such as `/dev/null`, is written to
    without waiting for it.

    Raises:
        ExecutionIOError: It can't be opened, or it is the log itself.
    """
    path = path.expanduser()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, flags, 0o600)
    except (FileExistsError, NotADirectoryError) as error:
        raise ExecutionIOError(f"output log {path} is not below a directory") from error
    except OSError as error:
        raise ExecutionIOError(f"output log {path}: {error.strerror}") from error
    found = os.fstat(fd)
    if any(os.path.samestat(found, os.fstat(log_fd)) for log_fd in log_fds):
        os.close(fd)
        raise ExecutionIOError(f"output log {path} is the log file itself")
    if stat.S_ISREG(found.st_mode):
        os.ftruncate(fd, 0)
    return fd
