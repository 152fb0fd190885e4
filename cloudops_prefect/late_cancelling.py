"""A run that was asked to cancel after it had ended, as from a page that still shows it running.

Prefect takes that, nobody ends the run again, and after five minutes the server calls it Cancelled.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from prefect.client.schemas.objects import State, StateType

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun


async def end_again(client: PrefectClient, flow_run: FlowRun) -> bool:
    """Takes a run back to how it had ended before it was asked to cancel; says whether it had."""
    if flow_run.state_type is not StateType.CANCELLING:
        return False
    states = await client.read_flow_run_states(flow_run.id)
    before = [state for state in states if state.type is not StateType.CANCELLING]
    last = max(before, key=attrgetter("timestamp"), default=None)
    if last is None or not last.is_final():
        return False
    end = State(type=last.type, name=last.name, message=last.message, data=last.data)
    await client.set_flow_run_state(flow_run.id, end, force=True)
    return True
