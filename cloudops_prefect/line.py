"""First come, first served: a run asks for a slot once the run that came before it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from uuid import UUID

TURN_TIMEOUT_SECONDS = 10.0
"""Seconds after which a run that does not get to its start, for want of the API, is overtaken."""


class Line:
    """The runs of an engine in the order in which they were started.

    A single command asks for its slot at once, a plan's flow only after some calls to the API.
    """

    def __init__(self) -> None:
        self._last = anyio.Event()
        self._last.set()
        self._places: dict[UUID, tuple[anyio.Event, anyio.Event]] = {}

    def join(self, flow_run_id: UUID) -> None:
        """Takes the place behind all others."""
        before, self._last = self._last, anyio.Event()
        self._places[flow_run_id] = (before, self._last)

    async def turn(self, flow_run_id: UUID) -> None:
        """Waits until who came before has asked; then whoever is behind may ask next.

        Returns without a pause where it is this run's turn, so that the caller's next call is what
        comes next in the event loop.
        """
        if flow_run_id not in self._places:
            return
        before, _ = self._places[flow_run_id]
        if not before.is_set():
            with anyio.move_on_after(TURN_TIMEOUT_SECONDS):
                await before.wait()
        self.leave(flow_run_id)

    def leave(self, flow_run_id: UUID) -> None:
        """Lets whoever is behind ask next."""
        if (place := self._places.pop(flow_run_id, None)) is not None:
            place[1].set()
