"""Where a local run was started: its directory and plan file, kept as labels of the flow run.

A label holds a path as a `file` URI (RFC 8089), which names the host and can hold any bytes.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from cloudops_prefect.commands import check_working_dir
from cloudops_prefect.errors import InvalidWorkingDirError
from cloudops_prefect.planfile import PlanFile

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

DIRECTORY_LABEL = "cloudops-directory"
PLAN_FILE_LABEL = "cloudops-plan-file"
PLAN_DIGEST_LABEL = "cloudops-plan-digest"
_FILE_URI = re.compile(r"file://(?P<host>[^/]*)(?P<path>/.*)")


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """What a run keeps of the place that it was started in.

    Attributes:
        directory: Where the commands of a local run run; None if a worker runs it, or if the
            directory is unknown.
        host: The name of the machine; None if it is unknown.
        plan_file: The file that the plan was read from; None if there is none.
    """

    directory: Path | None = None
    host: str | None = None
    plan_file: PlanFile | None = None

    @classmethod
    def here(cls, plan_file: PlanFile | None = None) -> Self:
        """Return the origin of a run that this process starts and runs."""
        return cls(current_directory(), socket.gethostname(), plan_file)

    @classmethod
    def for_workers(cls, plan_file: PlanFile | None) -> Self:
        """Return the origin of a run that this process starts and a worker runs."""
        return cls(None, socket.gethostname() if plan_file else None, plan_file)

    @classmethod
    def of_run(cls, flow_run: FlowRun) -> Self:
        """Read the origin from the labels of a run."""
        host, directory = _place_in(flow_run, DIRECTORY_LABEL)
        file_host, path = _place_in(flow_run, PLAN_FILE_LABEL)
        digest = flow_run.labels.get(PLAN_DIGEST_LABEL)
        plan_file = None if path is None or digest is None else PlanFile(path, str(digest))
        return cls(directory, host or file_host, plan_file)

    def labels(self) -> dict[str, str]:
        """Return the labels of a run that has this origin."""
        labels: dict[str, str] = {}
        if self.directory is not None:
            labels[DIRECTORY_LABEL] = _uri_of(self.host, self.directory)
        if self.plan_file is not None:
            labels[PLAN_FILE_LABEL] = _uri_of(self.host, self.plan_file.path)
            labels[PLAN_DIGEST_LABEL] = self.plan_file.digest
        return labels

    @property
    def is_here(self) -> bool:
        """Whether this is the machine that the run was started on."""
        return self.host == socket.gethostname()

    def changed_plan_file(self) -> Path | None:
        """Return the plan's file if its content on this machine is no longer the run's."""
        file = self.plan_file
        return file.path if file is not None and self.is_here and file.has_changed() else None

    def check_directory(self) -> None:
        """Refuse to go on with a run whose directory is not here.

        Raises:
            InvalidWorkingDirError: It does not exist here, or nothing can run in it.
        """
        if self.directory is None:
            return
        try:
            check_working_dir(self.directory)
        except InvalidWorkingDirError as error:
            raise InvalidWorkingDirError(
                f"{error.detail}; the run was started there{self._elsewhere()}, and its commands "
                "run nowhere else: make the directory available, or start a new run"
            ) from error

    def _elsewhere(self) -> str:
        if self.host is None or self.is_here:
            return ""
        return f" on {self.host} (this machine is {socket.gethostname()})"


def run_directory(flow_run: FlowRun, *, is_driven: bool) -> Path | None:
    """Return the directory in which the commands of a run run; None if this process has none.

    That of a local run is kept with it. A worker, and a process that calls a flow, run it where
    they are.

    Args:
        flow_run: The run that begins in this process.
        is_driven: Whether an engine of this process runs it.

    Raises:
        InvalidWorkingDirError: The directory of a local run is not here.
    """
    is_called = flow_run.deployment_id is None and not is_driven
    origin = RunOrigin() if is_called else RunOrigin.of_run(flow_run)
    origin.check_directory()
    directory = origin.directory or current_directory()
    return None if directory is None else _as_the_shell_names_it(directory)


def _as_the_shell_names_it(directory: Path) -> Path:
    """Return the path by which the shell of this process knows a directory, links included."""
    named = Path(os.environ.get("PWD", ""))
    try:
        return named if named.is_absolute() and named.samefile(directory) else directory
    except OSError:
        return directory


def current_directory() -> Path | None:
    """Return the directory of this process, None if it has been removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _uri_of(host: str | None, path: Path) -> str:
    return f"file://{quote(host or '')}{quote_from_bytes(os.fsencode(path))}"


def _place_in(flow_run: FlowRun, label: str) -> tuple[str | None, Path | None]:
    uri = _FILE_URI.fullmatch(str(flow_run.labels.get(label)))
    if uri is None:
        return None, None
    return unquote(uri["host"]) or None, Path(os.fsdecode(unquote_to_bytes(uri["path"])))
