"""Schedules of deployments: checked before the API gets them, and the times of their next runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.server.schemas import schedules as server_schedules
from pydantic import TypeAdapter
from pydantic import ValidationError as WrongTypesError

from cloudops_prefect.durations import Duration
from cloudops_prefect.errors import ValidationError
from cloudops_prefect.mistakes import nearest

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import SCHEDULE_TYPES

CRON_NAMES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
"""The names that Prefect takes in place of a cron expression."""
DEFAULT_TIMEZONE = "UTC"
MAX_RUNS_SINCE_START = 500_000
"""The runs of a recurrence rule that Prefect's scheduler goes through within some seconds."""
_CRON_FIELDS = "minute hour day month weekday"
# It is whatever the machine is set to that computes the schedule, maybe not this one.
_MACHINE_TIMEZONE = "localtime"
_UNTIL_IN_UTC = re.compile(r"UNTIL=\w+Z", re.IGNORECASE)
_START_IN_UTC = re.compile(r"DTSTART\S*Z", re.IGNORECASE)
_START = re.compile(r"DTSTART\S*?:(\d{8})", re.IGNORECASE)
_FREQUENT = re.compile(r"FREQ=(SECONDLY|MINUTELY)", re.IGNORECASE)
_INTERVAL = re.compile(r"INTERVAL=(\d+)", re.IGNORECASE)

_duration = TypeAdapter[Any](Duration)
_server_schedule = TypeAdapter[Any](server_schedules.SCHEDULE_TYPES)


async def make_schedule(
    *,
    cron: str | None = None,
    interval: timedelta | str | float | None = None,
    rrule: str | None = None,
    timezone: str | None = None,
) -> SCHEDULE_TYPES | None:
    """Return the schedule that the arguments describe; None if they describe none.

    Raises:
        ValidationError: There is more than one schedule, a time zone without a schedule, a value
            is invalid, or the schedule never starts a run.
    """
    given = {"cron": cron, "interval": interval, "rrule": rrule}
    named = {kind: value for kind, value in given.items() if value is not None}
    if len(named) > 1:
        raise ValidationError(f"a deployment takes one schedule, not {' and '.join(named)}")
    if not named:
        if timezone is not None:
            raise ValidationError("a timezone needs a schedule: cron, interval or rrule")
        return None
    if timezone is not None:
        _check_timezone(timezone)
    ((kind, value),) = named.items()
    try:
        return await _make(kind, value, timezone or DEFAULT_TIMEZONE)
    except WrongTypesError as error:
        detail = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
    # What dateutil raises for a rule that it can't read depends on where the rule goes wrong.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        detail = str(error)
    raise ValidationError(f"{kind} {str(value)!r}: {' '.join(detail.split())}", kind)


async def next_runs(
    schedule: SCHEDULE_TYPES, count: int = 3, *, start: datetime | None = None
) -> list[datetime]:
    """Return when a schedule starts its next runs, in the schedule's time zone.

    The code is that of the server's scheduler, so that both agree when the clocks change.

    Args:
        schedule: One that `make_schedule` returned or the API has.
        count: How many runs; fewer are returned if the schedule ends before.
        start: The earliest time; now if absent.

    Raises:
        ValueError: A cron expression has no next time.
    """
    scheduler = _server_schedule.validate_python(schedule.model_dump())
    zone = ZoneInfo(scheduler.timezone or DEFAULT_TIMEZONE)
    moments = await scheduler.get_dates(count, start=start)
    # Prefect's own type of date and time depends on the version of Python.
    return [datetime.fromtimestamp(moment.timestamp(), zone) for moment in moments]


async def _make(kind: str, value: Any, timezone: str) -> SCHEDULE_TYPES:
    if kind == "cron":
        schedule: SCHEDULE_TYPES = CronSchedule(cron=_checked_cron(value), timezone=timezone)
    elif kind == "rrule":
        schedule = RRuleSchedule(rrule=_checked_rrule(value), timezone=timezone)
    else:
        schedule = IntervalSchedule(interval=_duration.validate_python(value), timezone=timezone)
    # Adds the start to a rule that has none. Prefect would count from 2020 otherwise, which takes
    # it minutes if the rule has a run every second.
    schedule = DeploymentScheduleCreate(schedule=schedule).schedule
    await _check_next_run(schedule)
    return schedule


async def _check_next_run(schedule: SCHEDULE_TYPES) -> None:
    # The 31st of February is valid cron. The server's scheduler fails on it again and again.
    try:
        runs = await next_runs(schedule, 1)
    except ValueError:
        if not isinstance(schedule, CronSchedule):
            raise
        runs = []
    if not runs:
        is_rule = isinstance(schedule, RRuleSchedule)
        hint = "; a rule without DTSTART begins in 2020" if is_rule else ""
        raise ValueError(f"there is no such time from now on{hint}")


def _checked_cron(cron: str) -> str:
    """Return a cron expression with single blanks between its fields.

    Prefect also takes a sixth field, the seconds, and a seventh, the years. Other programs have the
    seconds first, and a run every second is rarely meant, so that both are refused. A field with
    R starts a run at random minutes, and at others whenever the server plans its runs anew.

    Raises:
        ValueError: There are not five fields, or the name is unknown.
    """
    fields = cron.split()
    if len(fields) == 1 and cron.strip().startswith("@"):
        return _checked_name(fields[0])
    if len(fields) != len(_CRON_FIELDS.split()):
        raise ValueError(_wrong_count(fields))
    if any(field[0] in "rRhH" for field in fields):
        raise ValueError("Prefect runs nothing at random times (R) or at hashed ones (H)")
    return " ".join(fields)


def _checked_name(name: str) -> str:
    if name.lower() not in CRON_NAMES:
        raise ValueError(f"Prefect knows no such name, but {', '.join(CRON_NAMES)}")
    return name


def _wrong_count(fields: list[str]) -> str:
    count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
    hint = f"; without the seconds it is {' '.join(fields[1:])!r}" if len(fields) == 6 else ""
    return f"it has {count}, but cron has five ({_CRON_FIELDS}), or a name like @daily{hint}"


def _checked_rrule(rrule: str) -> str:
    """Return a recurrence rule that Prefect's scheduler can work with.

    Raises:
        ValueError: UNTIL has an offset that the start has not, or there are very many runs between
            the start and today, which the scheduler goes through each time.
    """
    if _UNTIL_IN_UTC.search(rrule) and not _START_IN_UTC.search(rrule):
        raise ValueError("UNTIL is in the schedule's timezone; write it without the Z")
    runs = _runs_so_far(rrule)
    if runs > MAX_RUNS_SINCE_START:
        raise ValueError(f"it has {runs:,} runs between DTSTART and today; leave DTSTART out")
    return rrule


def _runs_so_far(rrule: str) -> int:
    start, frequency = _START.search(rrule), _FREQUENT.search(rrule)
    if start is None or frequency is None:
        return 0
    interval = _INTERVAL.search(rrule)
    seconds = 1 if frequency[1].upper() == "SECONDLY" else 60
    period = timedelta(seconds=seconds * int(interval[1] if interval else 1))
    # Timezones make no difference to so rough a number.
    age = datetime.now(UTC) - datetime.strptime(start[1], "%Y%m%d").replace(tzinfo=UTC)
    return age // period


def _check_timezone(timezone: str) -> None:
    known = available_timezones() - {_MACHINE_TIMEZONE}
    if timezone not in known:
        near = _nearest_timezone(timezone, known)
        hint = f"did you mean {near}?" if near else "give a name like Europe/Berlin"
        raise ValidationError(f"there is no timezone {timezone!r}; {hint}", "timezone")


def _nearest_timezone(timezone: str, known: set[str]) -> str | None:
    wanted = "_".join(timezone.lower().split())
    same = [name for name in known if f"/{name.lower()}".endswith(f"/{wanted}")]
    if same and wanted:
        return min(same, key=lambda name: (len(name), name))
    # Without a slash it is an abbreviation, which resembles those of other places.
    return nearest(timezone, known) if "/" in timezone else None
