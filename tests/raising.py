"""Parts of the runner that raise."""

import sys
from collections.abc import Iterable
from importlib import import_module
from operator import attrgetter

import pytest

BOOM = "boom"


def break_parts(patch: pytest.MonkeyPatch, parts: Iterable[str], error: BaseException) -> None:
    """Have each function raise, which is named like `plan_run:PlanRun.run`."""

    def fail(*_: object, **__: object) -> None:
        raise error

    for part in parts:
        module, _, path = part.partition(":")
        *owner, name = path.split(".")
        found = import_module(f"cloudops_prefect.{module}")
        holder = attrgetter(".".join(owner))(found) if owner else found
        patch.setattr(holder, name, fail)


def boom() -> BaseException:
    """An error whose message has a byte of a file name that is not UTF-8."""
    return RuntimeError(f"{BOOM} \udce9")


def break_this_process(parts: Iterable[str]) -> None:
    """Do so for the rest of this process."""
    break_parts(pytest.MonkeyPatch(), parts, boom())
    print("broken:", *parts, file=sys.stderr, flush=True)
