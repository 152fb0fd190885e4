"""Which values of an environment are secret: those of variables that are called so."""

from __future__ import annotations

import fnmatch
import logging
import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from cloudops_prefect.redaction import MIN_SECRET_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

logger = logging.getLogger("cloudops_prefect.redaction")
_warned: set[str] = set()


def secret_values(env: Mapping[str, str], patterns: tuple[str, ...]) -> Iterator[str]:
    """Yield the values of the variables whose names match one of `patterns`, in any case.

    A value under 4 characters would turn output into stars: it is left out, with one warning in the
    life of the process, which names the variable and not the value.
    """
    if not patterns:
        return
    # Asked several times for each command; only the values that count are decoded and looked at.
    for name in [name for name in env if is_secret(name, patterns)]:
        value = env.get(name, "")
        if len(value.strip()) >= MIN_SECRET_CHARS:
            yield value
        elif value.strip():
            _warn_once(name)


@lru_cache(maxsize=4096)
def is_secret(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a variable is secret: its name matches one of `patterns`, in any case."""
    return bool(patterns) and _matcher(patterns).match(name) is not None


@cache
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)), re.IGNORECASE)


def _warn_once(name: str) -> None:
    if name not in _warned:
        _warned.add(name)
        logger.warning(
            "The value of %s is not replaced in output: it has fewer than %d characters",
            name,
            MIN_SECRET_CHARS,
        )
