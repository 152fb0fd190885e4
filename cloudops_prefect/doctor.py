"""Examine what an engine needs, and create the automations that report what has died."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import get_current_settings

from cloudops_prefect.api_errors import api
from cloudops_prefect.crashes import died_in_silence
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.logfiles import open_directory
from cloudops_prefect.naming import FLOW_NAMES
from cloudops_prefect.stranded import GIVEN_BACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.orchestration import PrefectClient
    from prefect.events.actions import Action
    from prefect.events.schemas.automations import Automation

    from cloudops_prefect.config import ExecutionConfig

NAME = "cloudops: runs whose process died"
HEARTBEAT = "prefect.flow-run.heartbeat"
_PENDING = "prefect.flow-run.Pending"
HEARTBEATS = 3
"""As many may get lost before a run counts as dead."""
STRANDED_NAME = "cloudops: runs that no worker begins"
STRANDED = timedelta(minutes=10)
"""Longer than a worker of processes takes to begin a run, its code's download included."""
# After these a run sends no heartbeats, and is not dead: it has ended, or waits.
_SILENT = (
    *("Completed", "Cached", "Failed", "TimedOut", "Cancelled", "Crashed"),
    *("Scheduled", "Late", "Pending", "Paused", "Suspended", "Resuming"),
    *("AwaitingRetry", "AwaitingConcurrencySlot"),
)
_RUNS = ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]})
_OF_OUR_FLOWS = ResourceSpecification(
    {"prefect.resource.role": "flow", "prefect.resource.name": [*FLOW_NAMES]}
)
# Other types may wait long for a machine, and an engine's own runs, for their turn.
_IN_PROCESS_POOLS = ResourceSpecification(
    {"prefect.resource.role": "work-pool", "prefect.work-pool.type": "process"}
)


Level = Literal["ok", "note", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined.

    Attributes:
        subject: The thing.
        detail: Its condition.
        level: `note` if it is not set up, which a new machine need not be; `broken` if it does not
            work as it should.
        advice: What to do, empty if nothing.
    """

    subject: str
    detail: str
    level: Level = "ok"
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing has to be done."""
        return self.level == "ok"


async def examine(config: ExecutionConfig, *, fix: bool = False) -> list[Finding]:
    """Examine everything that an engine needs, the API first.

    Args:
        config: As the engine's.
        fix: Whether to create what is missing on the server, and to repair what was altered there.
    """
    findings = [_log_directory(config)]
    try:
        async with api() as client:
            version = await client.api_version()
            findings.append(await _crash_detection(client, fix=fix))
            findings.append(
                await _automation(client, "stranded runs", stranded_automation, STRANDED, fix=fix)
            )
            findings.insert(0, Finding("API", f"{client.api_url} (Prefect {version})"))
    except ExecutionIOError as error:
        detail, _, advice = str(error).removeprefix("IO error: ").partition("; ")
        findings.insert(0, Finding("API", detail, "broken", advice or "set PREFECT_API_URL"))
    return findings


def crash_automation(window: timedelta) -> AutomationCore:
    """Returns the automation that calls a run crashed after so long without a heartbeat."""
    return _after_silence(
        window,
        name=NAME,
        description=f"Marks runs of {', '.join(FLOW_NAMES)} as crashed when their process died",
        match_related=_OF_OUR_FLOWS,
        after={HEARTBEAT},
        expect={HEARTBEAT, *(f"prefect.flow-run.{name}" for name in _SILENT)},
        state=StateType.CRASHED,
        message=died_in_silence(window),
    )


def stranded_automation(window: timedelta) -> AutomationCore:
    """Returns the automation that gives back what a worker took so long ago and has not begun.

    An engine that is asked for such a run does so when the worker has missed its heartbeats.
    """
    return _after_silence(
        window,
        name=STRANDED_NAME,
        description=f"Gives runs of {', '.join(FLOW_NAMES)} back to their work pool when the "
        "worker that took them died before it began them",
        match_related=[_OF_OUR_FLOWS, _IN_PROCESS_POOLS],
        after={_PENDING},
        expect={f"prefect.flow-run.{name}" for name in ("Running", *_SILENT)} - {_PENDING},
        state=StateType.SCHEDULED,
        message=f"{GIVEN_BACK}: pending for {window.total_seconds():.0f} s",
    )


def _after_silence(  # noqa: PLR0913 (what the two differ in)
    window: timedelta,
    *,
    name: str,
    description: str,
    match_related: ResourceSpecification | list[Any],
    after: set[str],
    expect: set[str],
    state: StateType,
    message: str,
) -> AutomationCore:
    """Returns the automation that changes a run's state when nothing of it is heard for so long."""
    return AutomationCore(
        name=name,
        description=description,
        trigger=EventTrigger(
            match=_RUNS,
            match_related=match_related,
            for_each={"prefect.resource.id"},
            after=after,
            expect=expect,
            posture=Posture.Proactive,
            threshold=1,
            within=window,
        ),
        actions=[ChangeFlowRunState(name=None, state=state, message=message, force=False)],
    )


async def _crash_detection(client: PrefectClient, *, fix: bool) -> Finding:
    frequency = get_current_settings().flows.heartbeat_frequency
    if frequency is None:
        advice = "set PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
        return Finding("crash detection", "flows send no heartbeats", "note", advice)
    window = timedelta(seconds=HEARTBEATS * frequency)
    return await _automation(client, "crash detection", crash_automation, window, fix=fix)


async def _automation(
    client: PrefectClient,
    subject: str,
    after: Callable[[timedelta], AutomationCore],
    window: timedelta,
    *,
    fix: bool,
) -> Finding:
    wanted = after(window)
    existing = await client.read_automations_by_name(wanted.name)
    fault = _fault(existing, wanted)
    if fault is None:
        return Finding(subject, f"the server has {wanted.name!r}")
    if not fix:
        level = "broken" if existing else "note"
        return Finding(subject, fault, level, "to set it up: cloudops doctor --fix")
    if not existing:
        await client.create_automation(wanted)
        return Finding(subject, f"created {wanted.name!r}, after {window.total_seconds():.0f} s")
    first, *others = existing
    wanted = after(max(window, _window(first)))
    await client.update_automation(first.id, _mended(first, wanted))
    for other in others:
        await client.delete_automation(other.id)
    return Finding(
        subject, f"mended {wanted.name!r}, after {_window(wanted).total_seconds():.0f} s"
    )


def _fault(existing: list[Automation], wanted: AutomationCore) -> str | None:
    name, window = wanted.name, _window(wanted)
    if not existing:
        does = wanted.description
        return f"not set up: no automation {does[:1].lower()}{does[1:]}"
    if len(existing) > 1:
        return f"the server has {len(existing)} automations {name!r}"
    automation = existing[0]
    if not automation.enabled:
        return f"the automation {name!r} is disabled"
    if _is_altered(automation, wanted):
        return f"the automation {name!r} is not as this version creates it"
    if _window(automation) < window:
        return f"the automation {name!r} waits less than {window.total_seconds():.0f} s"
    return None


def _is_altered(automation: AutomationCore, wanted: AutomationCore) -> bool:
    """Whether it lacks something of what is wanted; it may wait otherwise, and do more."""
    triggers = [one.trigger.model_dump(exclude={"within"}) for one in (automation, wanted)]
    done = [_deed(action) for action in automation.actions]
    return triggers[0] != triggers[1] or any(_deed(one) not in done for one in wanted.actions)


def _deed(action: Action) -> dict[str, Any]:
    """Returns what an action does, whatever its message says of the window."""
    fields = action.model_dump()
    return fields | {"message": (fields.get("message") or "").partition(":")[0]}


def _mended(automation: Automation, wanted: AutomationCore) -> AutomationCore:
    """Returns what is wanted, with what a user added to it, as a message to somebody."""
    added = [one for one in automation.actions if not isinstance(one, ChangeFlowRunState)]
    return AutomationCore.model_validate(
        automation.model_dump(exclude={"id", "owner_resource"})
        | wanted.model_dump(include={"description", "enabled", "trigger"})
        | {"actions": [one.model_dump() for one in (*wanted.actions, *added)]}
    )


def _window(automation: AutomationCore) -> timedelta:
    trigger = automation.trigger
    return trigger.within if isinstance(trigger, EventTrigger) else timedelta()


def _log_directory(config: ExecutionConfig) -> Finding:
    path = config.resolved_log_dir
    try:
        os.close(open_directory(path))
    except ExecutionIOError as error:
        return Finding("log directory", str(error), "broken", "set CLOUDOPS_LOG_DIR")
    return Finding("log directory", str(path))
