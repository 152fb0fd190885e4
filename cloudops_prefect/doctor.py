"""What an engine's surroundings lack, and the automation that tells of processes that died."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import get_current_settings

from cloudops_prefect.api_errors import api_complaint
from cloudops_prefect.crashes import DIED
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.logfiles import open_directory
from cloudops_prefect.naming import FLOW_NAMES

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import Automation

    from cloudops_prefect.config import ExecutionConfig

NAME = "cloudops: runs whose process died"
HEARTBEAT = "prefect.flow-run.heartbeat"
HEARTBEATS = 3
"""As many may get lost before a run counts as dead."""
# After these a run sends no heartbeats, and is not dead: it has ended, or waits.
_SILENT = (
    *("Completed", "Cached", "Failed", "TimedOut", "Cancelled", "Crashed"),
    *("Scheduled", "Late", "Pending", "Paused", "Suspended", "Resuming"),
    *("AwaitingRetry", "AwaitingConcurrencySlot"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        advice: What to do, empty if nothing.
    """

    subject: str
    detail: str
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing has to be done."""
        return not self.advice


async def examine(config: ExecutionConfig, *, fix: bool = False) -> list[Finding]:
    """Looks at everything that an engine needs, the API first.

    Args:
        config: As the engine's.
        fix: Creates what is missing on the server.
    """
    findings = [_log_directory(config)]
    try:
        async with get_client() as client:
            version = await client.api_version()
            findings.insert(0, Finding("API", f"{client.api_url} (Prefect {version})"))
            findings.append(await _automation(client, fix=fix))
    except Exception as error:
        if (complaint := api_complaint(error)) is None:
            raise
        advice = "set PREFECT_API_URL, or run: cloudops server start"
        findings.insert(0, Finding("API", complaint, advice))
    return findings


def crash_automation(window: timedelta) -> AutomationCore:
    """Returns the automation that calls a run crashed after so long without a heartbeat."""
    return AutomationCore(
        name=NAME,
        description=f"Marks runs of {', '.join(FLOW_NAMES)} as crashed when their process died",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": [*FLOW_NAMES]}
            ),
            for_each={"prefect.resource.id"},
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{name}" for name in _SILENT)},
            posture=Posture.Proactive,
            threshold=1,
            within=window,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                message=f"{DIED}: no heartbeat for {window.total_seconds():.0f} s",
                force=False,
            )
        ],
    )


async def _automation(client: PrefectClient, *, fix: bool) -> Finding:
    subject = "crash detection"
    frequency = get_current_settings().flows.heartbeat_frequency
    if frequency is None:
        return Finding(subject, "flows send no heartbeats", "set PREFECT_FLOWS_HEARTBEAT_FREQUENCY")
    window = timedelta(seconds=HEARTBEATS * frequency)
    existing = await client.read_automations_by_name(NAME)
    fault = _fault(existing, window)
    if fault is None:
        return Finding(subject, f"runs without a heartbeat are marked: {NAME!r}")
    if not fix:
        return Finding(subject, fault, "run: cloudops doctor --fix")
    for automation in existing:
        await client.delete_automation(automation.id)
    await client.create_automation(crash_automation(window))
    created = f"created {NAME!r}, after {window.total_seconds():.0f} s without a heartbeat"
    return Finding(subject, created)


def _fault(existing: list[Automation], window: timedelta) -> str | None:
    if not existing:
        return f"the server has no automation {NAME!r}: dead workers' runs stay running for ever"
    automation = existing[0]
    if not automation.enabled:
        return f"the automation {NAME!r} is disabled"
    trigger = automation.trigger
    if not isinstance(trigger, EventTrigger) or trigger.within < window:
        return f"the automation {NAME!r} waits less than {HEARTBEATS} heartbeats"
    return None


def _log_directory(config: ExecutionConfig) -> Finding:
    path = config.resolved_log_dir
    try:
        os.close(open_directory(path))
    except ExecutionIOError as error:
        return Finding("log directory", str(error), "set CLOUDOPS_LOG_DIR")
    return Finding("log directory", str(path))
