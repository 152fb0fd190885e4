"""`cloudops` run in the process of the tests, which saves each call Prefect's import."""

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from cloudops_prefect.cli.app import run_tokens


@dataclass(frozen=True)
class Cloudops:
    """`cloudops` against an API."""

    api: str
    log_dir: Path

    def __call__(self, *arguments: object) -> CompletedProcess[str]:
        out, err = StringIO(), StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            temporary_settings({PREFECT_API_URL: self.api}),
        ):
            patch.setenv("CLOUDOPS_LOG_DIR", str(self.log_dir))
            patch.setenv("COLUMNS", "120")
            with redirect_stdout(out), redirect_stderr(err):
                code = run_tokens([*map(str, arguments)])
        return CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def json(self, *arguments: object):
        done = self(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)
