"""Benchmarks of the package beside plain Prefect, prefect-shell and no Prefect at all.

Servers, workers and commands that are hard to stop are those of the tests.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))
