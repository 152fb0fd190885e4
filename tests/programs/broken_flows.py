"""The flow of plans that is deployed, in a process in which parts of the runner raise."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from raising import break_this_process

from cloudops_prefect.flows import run_plan

__all__ = ["run_plan"]

# The commands of the run, which may be Python programs, inherit the environment.
if parts := os.environ.pop("CLOUDOPS_TEST_BROKEN_PARTS", ""):
    break_this_process(parts.split())
