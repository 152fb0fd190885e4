"""Runs that were cancelled while their process was being started, told by that process at its end.

Prefect's runners hear of a cancellation only once they have a process to stop, and its engine ends
without a word where it may not begin: such a run would stay Cancelling until the server cleans up,
five minutes later.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType

from cloudops_prefect.control import RUNNERS_MARK
from cloudops_prefect.states import cancelled_state

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

_ENGINE = "prefect.engine"

logger = logging.getLogger("cloudops_prefect.unbegun")


def tell_cancellation_at_exit() -> None:
    """Lets the process of a run end the run's cancellation, unless the run has begun by then."""
    main = sys.modules["__main__"].__spec__
    # The commands of a run inherit its environment, and may be Python programs with Prefect too.
    if RUNNERS_MARK in os.environ and main is not None and main.name == _ENGINE:
        atexit.register(_tell_cancellation)


def has_begun() -> None:
    """Leave the run's end to the flow; the process's exit would wait for an API that is away."""
    atexit.unregister(_tell_cancellation)


def _tell_cancellation() -> None:
    flow_run_id = UUID(os.environ[RUNNERS_MARK])
    try:
        with get_client(sync_client=True) as client:
            states = client.read_flow_run_states(flow_run_id)
            if _was_never_begun(states):
                client.set_flow_run_state(flow_run_id, cancelled_state())
    except Exception as error:  # noqa: BLE001 (there is nobody left to tell)
        logger.debug("The API can't be told of a cancellation: %s", error)


def _was_never_begun(states: list[State[Any]]) -> bool:
    """Whether the newest of a run's states is the cancellation of what waited to begin."""
    types = [state.type for state in sorted(states, key=attrgetter("timestamp"))]
    # Whoever cancels twice leaves two states.
    turns = [type_ for type_, _ in groupby(types)]
    return turns[-2:] == [StateType.PENDING, StateType.CANCELLING]
