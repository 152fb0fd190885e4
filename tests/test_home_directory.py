"""A user who has neither HOME nor a passwd entry, as in a container with an arbitrary user id."""

import os
import subprocess
import sys

import pytest

USER = 54321
MISSING = (
    "the user 54321 has no home directory, which Prefect needs; set HOME to a directory that this "
    "user can write to"
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def as_stranger(code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Runs code as a user whom the system does not know, who may read the package all the same."""
    env = {name: value for name, value in os.environ.items() if name != "HOME"}
    become = f"import os, sys; os.setreuid({USER}, 0)"
    return subprocess.run(
        [sys.executable, "-c", f"{become}; {code}", *argv],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("arguments", [["shell", "true"], ["list"], ["doctor"]])
def test_the_command_line_says_in_one_line_what_to_set(arguments):
    done = as_stranger("from cloudops_prefect.cli import main; main()", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {MISSING}\n"


def test_python_says_what_to_set():
    done = as_stranger("from cloudops_prefect import ExecutionEngine")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(MISSING)
