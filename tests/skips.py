"""A pytest plugin: in CI a test is skipped for a reason that is listed here, or it fails.

`.ci/run` sets CLOUDOPS_TEST_CI. Elsewhere every skip is reported with its reason and passes.
"""

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
IN_CI = bool(os.environ.get("CLOUDOPS_TEST_CI"))
REASONS = {
    "pidfd_send_signal is a system call of Linux": "macOS has no pidfds",
    "file names of macOS are UTF-8": "macOS refuses others",
    "/dev/full is a device of Linux": "macOS has no such device",
}
"""Why a test may be skipped in CI, with what is behind it."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _failed_if_unlisted((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _failed_if_unlisted((yield))


def _failed_if_unlisted(report: Report) -> Report:
    if not (IN_CI and report.skipped and isinstance(report.longrepr, tuple)):
        return report
    path, line, said = report.longrepr
    if (reason := said.removeprefix("Skipped: ")) not in REASONS:
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: skipped, and tests/skips.py does not list: {reason}"
    return report
