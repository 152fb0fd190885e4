"""One request, run here: its checks, its process, its log, its result. Knows nothing of Prefect."""

from __future__ import annotations

import logging
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cloudops_prefect.commands import (
    check_size,
    check_working_dir,
    complete_env,
    invocation,
    passable_argv,
)
from cloudops_prefect.errors import (
    CommandFailedError,
    ExecutionCancelledError,
    ExecutionIOError,
    ExecutionTimeoutError,
    InvalidWorkingDirError,
    SpawnFailedError,
    ValidationError,
)
from cloudops_prefect.models import ExecutionResult, ExecutionStatus, ScriptCommand, one_line
from cloudops_prefect.output import OutputLog
from cloudops_prefect.process import ProcessOutcome, StopRequest, run_process
from cloudops_prefect.shown import redactor_for
from cloudops_prefect.unforeseen_errors import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from cloudops_prefect.background import BackgroundProcesses
    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.models import ExecutionRequest
    from cloudops_prefect.process import Description
    from cloudops_prefect.redaction import Redactor

logger = logging.getLogger("cloudops_prefect.execution")

NOT_STARTED = -1
# The least that any Linux passes in all is twice as much. To add up the environment takes time.
_LITTLE = 65_536
CANNOT_START = (SpawnFailedError, ValidationError, ExecutionIOError)


@dataclass(slots=True)
class CommandExecution:
    """A request that is executed on this machine.

    Attributes:
        directory: Where the command runs, and where its relative paths start. None: the directory
            of this process.
        env_from: Blocks that are read where the command runs.
        env: What the request's blocks add to the environment; the request's own ``env`` wins.
        secrets: Values that are replaced in everything that the command prints and that is said of
            it, besides those of variables that `ExecutionConfig.redact_env` names. They and ``env``
            are to be known before the log is opened.
        stop: Asks for the end of the command; ``reason`` becomes the result's status.
        background: What `ExecutionRequest.keep_background` has left running; to be ended by
            `end_background`.
        started_at: When the program was started, or it turned out that it can't be; None before.
    """

    request: ExecutionRequest
    execution_id: UUID
    config: ExecutionConfig
    directory: Path | None = None
    env_from: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: tuple[str, ...] = ()
    stop: StopRequest = field(default_factory=StopRequest)
    log: OutputLog | None = None
    started_at: datetime | None = None
    result: ExecutionResult | None = None
    background: BackgroundProcesses | None = None
    _redactor: Redactor | None = None

    @property
    def log_path(self) -> Path:
        """Where the bytes that the command prints are kept."""
        return self.config.log_path(self.execution_id)

    @property
    def working_dir(self) -> Path | None:
        """The directory of the process; None: the directory of this process."""
        return self._placed(self.request.working_dir) or self.directory

    @property
    def redactor(self) -> Redactor:
        """Replaces what may not be seen of this command."""
        if self._redactor is not None:
            return self._redactor
        return redactor_for(self.config, [self.request], self.secrets, self.env)

    def open(self) -> OutputLog:
        """Opens the log, so that readers may follow it from before the first byte.

        Raises:
            ExecutionIOError: if the log's directory or the user's copy can't be written.
        """
        # What it replaces is known from here on.
        self._redactor = self.redactor
        self.log = OutputLog.open(
            self.log_path,
            max_output_bytes=self.config.max_output_bytes,
            redactor=self._redactor,
            copy_to=self._placed(self.request.output_log_path),
        )
        return self.log

    async def run(self) -> ExecutionResult:
        """Runs the command to its end and returns the result, without the output it kept.

        A command that can't be started has a result too: failed, exit code -1.
        """
        started = datetime.now(UTC)
        try:
            log = self.log or self.open()
            with log:
                outcome = await self._run_process(log)
                self.background = outcome.background
                log.flush()
                for note in self._notes(outcome):
                    log.note(note)
        except CANNOT_START as error:
            return self.fail(error, started)
        self.result = self._ended(outcome)
        return self.result

    async def end_background(self) -> None:
        """Stop what the command was to leave running in the background; twice is once."""
        if self.background is None:
            return
        for survivor in await self.background.stop(self.config.grace_period_ms / 1000):
            logger.warning("%s", self._still_running(survivor))

    def kill_background(self) -> None:
        """End at once what `end_background` has not ended, where nobody can wait for that."""
        if self.background is not None:
            self.background.kill()

    def fail(self, error: BaseException, started: datetime | None = None) -> ExecutionResult:
        """Ends an execution that goes no further as failed, with exit code -1."""
        if self.log is not None:
            with suppress(OSError):
                self.log.close()
        ended = datetime.now(UTC)
        status = ExecutionStatus.FAILED
        reason = reason_of(error)
        self.result = self._result(status, NOT_STARTED, reason, started or ended, ended)
        return self.result

    def result_with_output(self) -> ExecutionResult:
        """Returns the result together with the end of what the command printed on each stream."""
        result = self.result
        assert result is not None, "the command has not ended"  # noqa: S101
        if self.log is None:
            return result
        stdout, stdout_truncated = self.log.captured("stdout")
        stderr, stderr_truncated = self.log.captured("stderr")
        return result.model_copy(
            update={
                "stdout": stdout,
                "stderr": stderr,
                "stdout_truncated": stdout_truncated,
                "stderr_truncated": stderr_truncated,
            }
        )

    async def _run_process(self, log: OutputLog) -> ProcessOutcome:
        request = self.request
        if (working_dir := self.working_dir) is not None:
            check_working_dir(working_dir)
        env = {**self.env, **request.env}
        call = invocation(request.command, env, working_dir=working_dir)
        whole_env = complete_env(call, env, working_dir)
        with passable_argv(call, whole_env) as argv:
            return await run_process(
                argv,
                env=whole_env,
                cwd=working_dir,
                on_output=log.write,
                stop=self.stop,
                timeout=self._timeout_ms / 1000,
                grace_period=self.config.grace_period_ms / 1000,
                on_started=self._on_started,
                keep_background=request.keep_background,
            )

    def _placed(self, path: Path | None) -> Path | None:
        return path if path is None or self.directory is None else self.directory / path

    def _on_started(self, _pid: int) -> None:
        self.started_at = self.started_at or datetime.now(UTC)

    @property
    def _timeout_ms(self) -> int:
        return self.request.effective_timeout_ms(self.config)

    def _ended(self, outcome: ProcessOutcome) -> ExecutionResult:
        status, error = self._verdict(outcome)
        loss = self.log.loss if self.log else None
        parts = [error, *map(self._still_running, outcome.survivors), loss]
        error = "; ".join(part for part in parts if part) or None
        # What was held back and our notes are in the log by now: no line is later than the end.
        ended = datetime.now(UTC)
        result = self._result(status, outcome.returncode, error, outcome.started_at, ended)
        return result.model_copy(update={"leftovers": self._leftovers(outcome)})

    def _leftovers(self, outcome: ProcessOutcome) -> list[str]:
        stopped = [one for one in outcome.leftovers if one not in outcome.survivors]
        return [self._describe(one) for one in stopped]

    def _notes(self, outcome: ProcessOutcome) -> Iterable[str]:
        for leftover in self._leftovers(outcome):
            yield f"stopped a process left in the background: {leftover}"
        yield from map(self._still_running, outcome.survivors)
        if (background := outcome.background) is not None:
            unread = "; what it prints from now on is not kept" if background.can_print else ""
            for process in map(self._describe, background.descriptions):
                yield f"runs in the background until the run ends: {process}{unread}"

    def _still_running(self, survivor: Description) -> str:
        return f"still running, as another user's process: {self._describe(survivor)}"

    def _describe(self, process: Description) -> str:
        # Before the line is cut: half a secret is one too.
        command_line = self.redactor.text(process.command_line)
        return f"{one_line(command_line)} (pid {process.pid})"

    def _verdict(self, outcome: ProcessOutcome) -> tuple[ExecutionStatus, str | None]:
        if outcome.ended_by == "timeout":
            return ExecutionStatus.TIMEOUT, str(ExecutionTimeoutError(self._timeout_ms))
        if outcome.ended_by == "cancelled":
            return ExecutionStatus.CANCELLED, str(ExecutionCancelledError())
        if outcome.returncode == 0:
            return ExecutionStatus.COMPLETED, None
        failure = CommandFailedError(outcome.returncode, describe_signal(outcome.returncode))
        return ExecutionStatus.FAILED, str(failure)

    def _result(
        self,
        status: ExecutionStatus,
        exit_code: int,
        error: str | None,
        started: datetime,
        ended: datetime,
    ) -> ExecutionResult:
        self.started_at = started = self.started_at or started
        return ExecutionResult(
            id=self.request.id,
            execution_id=self.execution_id,
            name=one_line(self.redactor.text(self.request.display_text)),
            status=status,
            exit_code=exit_code,
            error=None if error is None else self.redactor.text(error),
            started_at=started,
            completed_at=ended,
            duration=max(ended - started, timedelta()),
            log_path=self.log_path,
        )


def describe_signal(returncode: int) -> str | None:
    """Names the signal that ended a process, None if it exited by itself."""
    if returncode >= 0:
        return None
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    if -returncode == signal.SIGKILL:
        return f"killed by {name}: the machine's memory may have run out"
    return f"killed by {name}"


def check_paths(request: ExecutionRequest, *, later: bool = False) -> None:
    """Refuses what can't run on this machine; raises as the process would, before it is there.

    Args:
        request: What is to run.
        later: Other commands run before it, so that a directory that is absent may come to be.
    """
    working_dir = request.working_dir
    if working_dir is None or not working_dir.is_absolute():
        _check_current_directory()
    if working_dir is not None:
        if later and not _is_there(working_dir):
            return
        check_working_dir(working_dir)
    if isinstance(request.command, ScriptCommand):
        directory = (working_dir or Path()) / request.command.path.parent
        if later and not _is_there(directory):
            return
        invocation(request.command, request.env, working_dir)
    if request.argument_bytes > _LITTLE:
        call = invocation(request.command, request.env, working_dir)
        check_size(call, complete_env(call, request.env, working_dir))


def _check_current_directory() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise InvalidWorkingDirError(
            f"the current directory: {error.strerror}; change to one that exists, or give each "
            "command an absolute working_dir"
        ) from error


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # What is above it may be closed to us.
        return False
