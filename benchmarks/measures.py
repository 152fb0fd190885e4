"""What was measured: medians and their spread, and rows of a table."""

from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Sample:
    """Figures of the same thing, in seconds unless said otherwise."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def worst(self) -> float:
        return max(self.values)

    @property
    def p99(self) -> float:
        if len(self.values) < 2:
            return self.worst
        return quantiles(self.values, n=100, method="inclusive")[98]

    def __str__(self) -> str:
        if len(self.values) == 1:
            return seconds(self.median)
        return f"{seconds(self.median)} ({bare(min(self.values))}-{bare(self.worst)})"

    def figures(self) -> dict[str, Any]:
        return {"median": self.median, "values": list(self.values)}


@dataclass
class Row:
    """A line of the table.

    Attributes:
        cells: What is shown for each subject.
        misses: The targets that were not met; None if there is none to meet.
        figures: The same for tools.
    """

    name: str
    cells: dict[str, str]
    target: str = ""
    misses: list[str] | None = None
    figures: dict[str, Any] = field(default_factory=dict)


def seconds(value: float) -> str:
    """0.0123 -> 12 ms; 1.234 -> 1.23 s."""
    return f"{bare(value)} {'s' if value >= 1 else 'ms'}"


def bare(value: float) -> str:
    """As `seconds`, without the unit."""
    if value >= 1:
        return f"{value:.2f}"
    return f"{value * 1000:.0f}" if value >= 0.01 else f"{value * 1000:.1f}"


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


def missed(**conditions: tuple[float, float]) -> list[str]:
    """Names what is above its limit, with both figures."""
    return [
        f"{name.replace('_', ' ')} {value:.2f} > {limit:g}"
        for name, (value, limit) in conditions.items()
        if value > limit
    ]
