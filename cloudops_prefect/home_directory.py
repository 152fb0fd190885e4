"""The error of a user without a home directory, as in a container with an arbitrary user id."""

from __future__ import annotations

import os
from pathlib import Path

from cloudops_prefect.errors import ExecutionError


def check_home_directory() -> None:
    """Refuse to go on without a home directory, for which Prefect looks while it is imported.

    Raises:
        ExecutionError: There is neither HOME nor a passwd entry.
    """
    try:
        Path.home()
    except RuntimeError as error:
        raise ExecutionError(
            f"the user {os.getuid()} has no home directory, which Prefect needs; set HOME to a "
            "directory that this user can write to"
        ) from error
