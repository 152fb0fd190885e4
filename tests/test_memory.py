"""A process that runs commands needs no more memory for a gigabyte of output than for a kilobyte.

Each command's lines are followed as events while it prints. `make soak` prints the whole gigabyte.
"""

import os
import subprocess
import sys

import pytest
from running import PROGRAMS, PROJECT

MEGABYTE = 1_000_000
MUCH = 1000 * MEGABYTE if os.environ.get("CLOUDOPS_SOAK") else 200 * MEGABYTE


def peak_of(directory, *arguments):
    argv = [sys.executable, str(PROGRAMS / "peaks.py"), *map(str, arguments), str(directory)]
    env = os.environ | {"PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'tests'}"}
    ran = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


@pytest.fixture(scope="module")
def peak_of_one_kilobyte(tmp_path_factory):
    return peak_of(tmp_path_factory.mktemp("small"), 1, 1000, "lines")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "size", "kind"),
    [(1, MUCH, "lines"), (1, 100 * MEGABYTE, "line"), (50, MUCH // 50, "lines")],
    ids=["much", "one line", "50 at once"],
)
def test_the_peak_is_the_same_within_30_mb(tmp_path, peak_of_one_kilobyte, count, size, kind):
    assert peak_of(tmp_path, count, size, kind) - peak_of_one_kilobyte < 30 * MEGABYTE
