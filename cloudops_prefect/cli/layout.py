"""Where the boxes of a picture are: columns from left to right, in bands one below the other.

A command stands right of all that it waits for. What would make the picture too high gets a second
column; what would make it too wide goes on in the next band, which runs back to the left, so that
the end of one band is above the beginning of the next.
"""

from dataclasses import dataclass
from math import ceil, log, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudops_prefect.cli.picture import Picture

_SWEEPS = 8
_ASPECT = 1.6
_WIDEST = 10
_TOO_WIDE = 5


@dataclass(frozen=True, slots=True)
class Place:
    """A box's place: its column and row as they are drawn, and the band that it is in."""

    column: int
    row: float
    band: int


def places(picture: "Picture", box_aspect: float) -> dict[int, Place]:
    """Returns where each command is drawn.

    Args:
        picture: What is drawn.
        box_aspect: How many times wider than high the room for a box is.
    """
    found: dict[int, Place] = {}
    columns = _columns(picture, box_aspect)
    per_band = _per_band(columns, box_aspect)
    top = 0.0
    for band, begin in enumerate(range(0, len(columns), per_band)):
        inside = columns[begin : begin + per_band]
        highest = max(map(len, inside))
        for position, column in enumerate(inside):
            drawn = per_band - 1 - position if band % 2 else position
            for row, index in enumerate(column):
                found[index] = Place(drawn, top + (highest - len(column)) / 2 + row, band)
        top += highest + 0.5
    return found


def _columns(picture: "Picture", box_aspect: float) -> list[list[int]]:
    columns: list[list[int]] = []
    highest = max(6, ceil(sqrt(len(picture.names) * box_aspect / _ASPECT)))
    for layer in _ordered_layers(picture):
        parts = ceil(len(layer) / highest)
        size = ceil(len(layer) / parts)
        columns += [layer[begin : begin + size] for begin in range(0, len(layer), size)]
    return columns


def _ordered_layers(picture: "Picture") -> list[list[int]]:
    """Puts the commands of each layer into an order in which few edges cross."""
    layers: list[list[int]] = [[] for _ in range(max(picture.layers.values()) + 1)]
    for index in picture.order:
        layers[picture.layers[index]].append(index)
    at = {index: _centred(layer, i) for layer in layers for i, index in enumerate(layer)}
    graph = picture.graph
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for layer in layers if forward else layers[::-1]:
            mean = {
                index: _mean([at[n] for n in (graph.pred if forward else graph.succ)[index]])
                for index in layer
            }
            layer.sort(key=lambda index: (at[index] if mean[index] is None else mean[index], index))
            at |= {index: _centred(layer, i) for i, index in enumerate(layer)}
    return layers


def _centred(layer: list[int], position: int) -> float:
    return position - (len(layer) - 1) / 2


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _per_band(columns: list[list[int]], box_aspect: float) -> int:
    """Returns how many columns stand side by side; few pictures get better by a second band."""
    count, highest = len(columns), max(map(len, columns))
    if count <= _WIDEST or count * box_aspect / highest <= _TOO_WIDE:
        return count

    def misfit(bands: int) -> float:
        aspect = ceil(count / bands) * box_aspect / (bands * (highest + 0.5))
        return abs(log(aspect / _ASPECT))

    return ceil(count / min(range(1, count // 2), key=misfit))
