"""When a deployment runs by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import TypeAdapter
from pydantic import ValidationError as WrongTypesError

from cloudops_prefect.durations import Duration
from cloudops_prefect.errors import ValidationError

if TYPE_CHECKING:
    from datetime import timedelta

    from prefect.client.schemas.schedules import SCHEDULE_TYPES

_duration = TypeAdapter[Any](Duration)


def schedule_of(
    *,
    cron: str | None = None,
    interval: timedelta | str | float | None = None,
    rrule: str | None = None,
    timezone: str | None = None,
) -> SCHEDULE_TYPES | None:
    """Returns the schedule that was asked for; None if none was.

    Raises:
        ValidationError: More than one was asked for, a timezone without one, or what was asked for
            isn't one.
    """
    given = {"cron": cron, "interval": interval, "rrule": rrule}
    named = {kind: value for kind, value in given.items() if value is not None}
    if len(named) > 1:
        raise ValidationError(f"a deployment takes one schedule, not {' and '.join(named)}")
    if not named:
        if timezone is not None:
            raise ValidationError("a timezone needs a schedule: cron, interval or rrule")
        return None
    ((kind, value),) = named.items()
    try:
        return _make(kind, value, timezone)
    except WrongTypesError as error:
        detail = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
    # What dateutil raises for a rule that it can't read depends on where the rule goes wrong.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        detail = str(error)
    raise ValidationError(f"{kind} {str(value)!r}: {' '.join(detail.split())}", kind)


def _make(kind: str, value: Any, timezone: str | None) -> SCHEDULE_TYPES:
    if kind == "cron":
        schedule = CronSchedule(cron=value, timezone=timezone)
        _check_that_it_comes(value)
        return schedule
    if kind == "rrule":
        return RRuleSchedule(rrule=value, timezone=timezone)
    return IntervalSchedule(interval=_duration.validate_python(value), timezone=timezone)


def _check_that_it_comes(cron: str) -> None:
    # The 31st of February is valid cron; the server's scheduler fails on it, again and again.
    from prefect._vendor.croniter import CroniterBadDateError, croniter

    try:
        croniter(cron).get_next()  # pyright: ignore[reportUnknownMemberType]
    except CroniterBadDateError:
        raise ValueError("there is no such time") from None
