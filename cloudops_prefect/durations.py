"""Durations as people and programs write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, cast

from pydantic import BeforeValidator, WithJsonSchema

_SECONDS = {
    "d": 86_400,
    "h": 3_600,
    "m": 60,
    "min": 60,
    "s": 1,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
_WORDS = {
    "day": "d",
    "hour": "h",
    "hr": "h",
    "minute": "min",
    "min": "min",
    "second": "s",
    "sec": "s",
}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zµ]+)\s*")
_NUMBER = re.compile(r"\s*-?\d+(?:\.\d+)?\s*")


def parse_duration(value: object) -> object:
    """Turn the spellings that pydantic doesn't know into a `timedelta`; leave the rest to it.

    Known here: `"2s 500ms"` (units d, h, m or min, s, ms, us, ns), `{"secs": 2, "nanos": 0}` and a
    number of seconds in a string. Pydantic itself reads ISO 8601 and numbers of seconds. What is
    below a microsecond is rounded. A minus sign before a text holds for all of it.

    Raises:
        ValueError: A unit is unknown, or a part isn't a number with a unit.
    """
    if isinstance(value, bool):
        raise ValueError("a duration is ISO 8601, like PT2.5S, or like `2s 500ms`, or in seconds")  # noqa: TRY004 (pydantic turns a ValueError into its own error)
    try:
        if isinstance(value, dict):
            return _from_parts(cast("dict[object, object]", value))
        if isinstance(value, str):
            return _from_text(value)
    except OverflowError:
        raise ValueError("the duration is too long") from None
    return value


def _from_parts(parts: dict[object, object]) -> timedelta:
    seconds, nanos = parts.get("secs"), parts.get("nanos", 0)
    if type(seconds) is not int or type(nanos) is not int or not parts.keys() <= {"secs", "nanos"}:
        raise ValueError('a duration as an object is {"secs": whole number, "nanos": whole number}')
    return timedelta(seconds=seconds, microseconds=nanos / 1_000)


def _from_text(text: str) -> object:
    if _NUMBER.fullmatch(text):
        return timedelta(seconds=float(text))
    unsigned = text.strip().removeprefix("-")
    if not unsigned[:1].isdigit() or ":" in text:
        return text
    total = _sum_of_parts(unsigned)
    return -total if text.strip().startswith("-") else total


def _sum_of_parts(text: str) -> timedelta:
    total, position = timedelta(), 0
    while position < len(text):
        part = _PART.match(text.lower(), position)
        if not part:
            raise ValueError(
                f"`{text[position:].strip()}` is not a number with a unit, like 2s or 500ms"
            )
        total += timedelta(seconds=float(part[1]) * _seconds_in(part[2]))
        position = part.end()
    return total


def _seconds_in(unit: str) -> float:
    unit = _WORDS.get(unit.removesuffix("s") or unit, unit)
    if unit not in _SECONDS:
        raise ValueError(f"`{unit}` is not a unit of time; use d, h, m, s, ms, us or ns")
    return _SECONDS[unit]


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "description": "ISO 8601, like PT2.5S, or like `2s 500ms`"},
                {"type": "number", "description": "seconds"},
                {
                    "type": "object",
                    "properties": {"secs": {"type": "integer"}, "nanos": {"type": "integer"}},
                    "required": ["secs"],
                    "additionalProperties": False,
                },
            ]
        },
        mode="validation",
    ),
]
