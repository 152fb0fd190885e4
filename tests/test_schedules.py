"""Schedules as a deployment gets them, and the times that they have."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from prefect.client.schemas.schedules import CronSchedule

from cloudops_prefect.errors import ValidationError
from cloudops_prefect.schedules import CRON_NAMES, make_schedule, next_runs

pytestmark = pytest.mark.anyio

BEFORE_SUMMER = datetime(2027, 3, 27, tzinfo=UTC)
BEFORE_WINTER = datetime(2027, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize("name", [*CRON_NAMES, "@Daily", " @hourly "])
async def test_each_name_of_a_cron_expression_is_one_that_prefect_knows(name):
    schedule = await make_schedule(cron=name)
    assert isinstance(schedule, CronSchedule)
    assert schedule.cron == name.strip()
    assert len(await next_runs(schedule)) == 3


@pytest.mark.parametrize(
    ("cron", "complaint"),
    [
        ("0 0 3 * * *", "it has 6 fields, but cron has five (minute hour day month weekday)"),
        ("0 0 3 * * *", "without the seconds it is '0 3 * * *'"),
        ("* * * * * *", "it has 6 fields"),
        ("0 0 3 * * * 2027", "it has 7 fields"),
        ("0 3 * *", "it has 4 fields"),
        ("3", "it has 1 field,"),
        ("", "it has 0 fields"),
        ("@reboot", "Prefect knows no such name, but @hourly, @daily, @midnight, @weekly,"),
        ("@every 5m", "it has 2 fields"),
        ("R(0-10) * * * *", "nothing at random times"),
        ("r/5 * * * *", "nothing at random times"),
        ("H 3 * * *", "hashed"),
        ("60 * * * *", "Invalid cron string"),
        ("0 0 31 2 *", "there is no such time"),
        ("0 0 31 4,6,9,11 *", "there is no such time"),
    ],
)
async def test_cron_has_five_fields_or_a_name_and_comes_some_time(cron, complaint):
    with pytest.raises(ValidationError) as refusal:
        await make_schedule(cron=cron)
    assert str(refusal.value).startswith(f"Validation error: cron {cron!r}: ")
    assert complaint in str(refusal.value)
    assert refusal.value.field == "cron"


async def test_blanks_between_the_fields_are_no_fields():
    schedule = await make_schedule(cron="  0\t3  * * *\n")
    assert isinstance(schedule, CronSchedule)
    assert schedule.cron == "0 3 * * *"


@pytest.mark.parametrize(
    ("timezone", "complaint"),
    [
        ("", "there is no timezone ''; give a name like Europe/Berlin"),
        ("Mars/Base", "give a name like"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Europe/Berln", "did you mean Europe/Berlin?"),
        ("Berlin", "did you mean Europe/Berlin?"),
        ("new york", "did you mean America/New_York?"),
        ("utc", "did you mean UTC?"),
        # Of two hours east of Greenwich, none of it.
        ("CEST", "give a name like"),
        ("UTC+2", "give a name like"),
        # Another on each machine.
        ("localtime", "give a name like"),
    ],
)
@pytest.mark.parametrize("kind", [{"cron": "@daily"}, {"interval": "1d"}, {"rrule": "FREQ=DAILY"}])
async def test_a_timezone_is_an_iana_name(kind, timezone, complaint):
    with pytest.raises(ValidationError) as refusal:
        await make_schedule(**kind, timezone=timezone)
    assert complaint in str(refusal.value)
    assert refusal.value.field == "timezone"


@pytest.mark.parametrize(
    ("rrule", "complaint"),
    [
        ("FREQ=DAILY;UNTIL=20200101T000000", "there is no such time"),
        ("FREQ=DAILY;COUNT=3", "there is no such time from now on; a rule without DTSTART begins"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=31", "there is no such time"),
        ("FREQ=DAILY;UNTIL=20990101T000000Z", "write it without the Z"),
        ("DTSTART:20200101T000000\nRRULE:FREQ=MINUTELY", "runs between DTSTART and today"),
    ],
)
async def test_a_rule_that_the_scheduler_can_do_nothing_with_is_refused(rrule, complaint):
    with pytest.raises(ValidationError, match=complaint):
        await make_schedule(rrule=rrule, timezone="Europe/Berlin")


async def test_a_rule_that_runs_often_begins_when_it_is_made():
    schedule = await make_schedule(rrule="FREQ=SECONDLY")
    assert schedule is not None
    first, second, _ = await next_runs(schedule)
    assert second - first == timedelta(seconds=1)
    long_ago = "DTSTART:20200101T000000\nRRULE:FREQ=MINUTELY;INTERVAL=30"
    assert await make_schedule(rrule=long_ago)


@pytest.mark.parametrize(
    ("kind", "timezone", "start", "expected"),
    [
        # 02:30 does not exist on the 28th; the clock goes from 02:00 to 03:00.
        (
            {"cron": "30 2 * * *"},
            "Europe/Berlin",
            BEFORE_SUMMER,
            ["27T02:30:00+01:00", "28T03:30:00+02:00", "29T02:30:00+02:00"],
        ),
        # 02:30 is there twice on the 31st.
        (
            {"cron": "30 2 * * *"},
            "Europe/Berlin",
            BEFORE_WINTER,
            ["30T02:30:00+02:00", "31T02:30:00+02:00", "01T02:30:00+01:00"],
        ),
        (
            {"cron": "0 3 * * *"},
            None,
            BEFORE_SUMMER,
            ["27T03:00:00+00:00", "28T03:00:00+00:00", "29T03:00:00+00:00"],
        ),
        (
            {"cron": "@daily"},
            "Asia/Kathmandu",
            BEFORE_SUMMER,
            ["28T00:00:00+05:45", "29T00:00:00+05:45", "30T00:00:00+05:45"],
        ),
        (
            {"rrule": "FREQ=DAILY;BYHOUR=9;BYMINUTE=0;BYSECOND=0"},
            "Europe/Berlin",
            BEFORE_SUMMER,
            ["27T09:00:00+01:00", "28T09:00:00+02:00", "29T09:00:00+02:00"],
        ),
    ],
)
async def test_runs_follow_the_clock_of_their_timezone(kind, timezone, start, expected):
    schedule = await make_schedule(**kind, timezone=timezone)
    assert schedule is not None
    runs = await next_runs(schedule, start=start)
    assert [run.isoformat()[8:] for run in runs] == expected


@pytest.mark.parametrize(("interval", "hours"), [("1d", [24, 23, 24]), ("12h", [12, 12, 12])])
async def test_days_follow_the_clock_and_hours_are_as_long_as_ever(interval, hours):
    schedule = await make_schedule(interval=interval, timezone="Europe/Berlin")
    assert schedule is not None
    begun = datetime(2027, 3, 26, 9, tzinfo=UTC)
    runs = await next_runs(schedule.model_copy(update={"anchor_date": begun}), 4, start=begun)
    # Two times of one zone differ by what their clocks show.
    instants = [run.astimezone(UTC) for run in runs]
    gaps = [(later - earlier) / timedelta(hours=1) for earlier, later in pairwise(instants)]
    assert gaps == hours


async def test_an_interval_begins_when_it_is_made():
    before = datetime.now(UTC)
    schedule = await make_schedule(interval="6h")
    assert schedule is not None
    first, *_ = await next_runs(schedule)
    assert before + timedelta(hours=6) <= first <= datetime.now(UTC) + timedelta(hours=6)
