"""A user who has neither HOME nor a passwd entry, as in a container with an arbitrary user id."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

USER = "54321"
MISSING = (
    "the user 54321 has no home directory, which Prefect needs; set HOME to a directory that this "
    "user can write to"
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def as_stranger(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program as a user whom the system does not know."""
    env = {
        name: value for name, value in os.environ.items() if name not in {"HOME", "PREFECT_HOME"}
    }
    become = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"]
    return subprocess.run(
        [*become, *argv], env=env, cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("arguments", [["shell", "true"], ["list"], ["doctor"]])
def test_the_command_line_says_in_one_line_what_to_set(arguments, tmp_path):
    cloudops = str(Path(sys.executable).with_name("cloudops"))
    done = as_stranger(cloudops, *arguments, cwd=Path("/"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {MISSING}\n"


def test_python_says_what_to_set():
    code = "from cloudops_prefect import ExecutionEngine"
    done = as_stranger(sys.executable, "-c", code, cwd=Path("/"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(MISSING)
