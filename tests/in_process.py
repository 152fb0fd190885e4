"""`cloudops` run in the process of the tests, which saves each call Prefect's import."""

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from cloudops_prefect.cli.app import run_tokens


def run_captured(*arguments: object) -> CompletedProcess[str]:
    """Runs a command line whose streams have bytes below them, as those of a program."""
    out, err = (TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = run_tokens([*map(str, arguments)])
    printed = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return CompletedProcess(arguments, code, *printed)


@dataclass(frozen=True)
class Cloudops:
    """`cloudops` against an API."""

    api: str
    log_dir: Path

    def __call__(self, *arguments: object) -> CompletedProcess[str]:
        with (
            pytest.MonkeyPatch.context() as patch,
            temporary_settings({PREFECT_API_URL: self.api}),
        ):
            patch.setenv("CLOUDOPS_LOG_DIR", str(self.log_dir))
            patch.setenv("COLUMNS", "120")
            return run_captured(*arguments)

    def json(self, *arguments: object):
        done = self(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)
