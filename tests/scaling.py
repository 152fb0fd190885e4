"""How the cost of work grows, which tells of the code and not of the machine."""

import time
from collections.abc import Callable

LINEAR = 30
"""How much more ten times as much may cost; what is quadratic costs a hundred times as much."""


def cpu_seconds(work: Callable[[], object], times: int = 3) -> float:
    """Returns the CPU time of this process that the work takes, the least of some times."""
    spent: list[float] = []
    for _ in range(times):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent)
