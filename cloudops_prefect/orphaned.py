"""Processes of runs that live longer than the worker that started them.

The worker reads what they log to their console. Once it is dead, Prefect's console would end the
process at its next log record, in the middle of a plan.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from prefect.logging.handlers import PrefectConsoleHandler

from cloudops_prefect.control import RUNNERS_MARK

if TYPE_CHECKING:
    from rich.console import Console


def outlive_the_worker() -> None:
    """Lets the process of a run go on without a console when nobody reads it any more."""
    if RUNNERS_MARK not in os.environ:
        return
    for name in ("root", *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                # Rich's own exits.
                handler.console.on_broken_pipe = partial(_be_quiet, handler.console)


def _be_quiet(console: Console) -> None:
    console.quiet = True
