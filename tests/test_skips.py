"""In CI no test is skipped unnoticed."""

import subprocess
import sys
from pathlib import Path

import pytest
from skips import REASONS

TESTS = Path(__file__).parent
SKIPPED = """
import pytest

def test_it():
    pytest.skip({reason!r})
"""
SKIPPED_WHOLE = """
import pytest

pytest.skip({reason!r}, allow_module_level=True)
"""
LISTED = next(iter(REASONS))


@pytest.fixture(params=[SKIPPED, SKIPPED_WHOLE], ids=["a test", "a file"])
def run(request, tmp_path, monkeypatch):
    def run(reason: str, *, in_ci: bool) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(request.param.format(reason=reason))
        monkeypatch.setenv("CLOUDOPS_TEST_CI", "1" if in_ci else "")
        monkeypatch.setenv("PYTHONPATH", str(TESTS))
        argv = [sys.executable, "-m", "pytest", "-p", "skips", "--rootdir", tmp_path, tmp_path]
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def test_a_skip_for_a_reason_of_its_own_fails_in_ci(run):
    done = run("no such program", in_ci=True)
    assert done.returncode in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED}
    assert "skipped, and tests/skips.py does not list: no such program" in done.stdout


def test_a_skip_for_a_listed_reason_passes_in_ci(run):
    done = run(LISTED, in_ci=True)
    assert "1 skipped" in done.stdout
    assert done.returncode in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}


def test_every_skip_passes_on_a_users_machine(run):
    done = run("no such program", in_ci=False)
    assert "1 skipped" in done.stdout
    assert done.returncode in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
