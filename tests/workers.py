"""Work pools, workers and clones as the tests of deployments use them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
from prefect.client.orchestration import get_client
from prefect.utilities.callables import parameter_schema

from cloudops_prefect import Deployments, run_command, run_plan

ROOT = Path(__file__).parents[1]
POOL = "cloudops"


def environment(api: str, home: Path) -> dict[str, str]:
    """What `prefect` and `cloudops` are started with, so that they know `api` and nothing else."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CLOUDOPS_"))}
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(home / "prefect"),
        "CLOUDOPS_LOG_DIR": str(home / "logs"),
        "CLOUDOPS_GRACE_PERIOD_MS": "1000",
    }


def prefect(api: str, home: Path, *arguments: str, cwd: Path | None = None) -> str:
    """Runs Prefect's command line; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=environment(api, home),
        cwd=cwd or home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clone(target: Path) -> Path:
    """Copies what a clone has and a deployment needs."""
    for name in ("flows", "examples", "blocks", "cloudops_prefect"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    for path in ROOT.glob("prefect*.yaml"):
        shutil.copy(path, target)
    return target


def ask(method: str, url: str, body: dict | None = None) -> httpx.Response:
    """Asks the API as Prefect's own client does: 503 says that its database is locked just now."""
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        answers.append(httpx.request(method, url, json=body, timeout=30))
        return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

    until(is_answered, 30)
    return answers[-1]


def create_pool(api: str, name: str = POOL, limit: int | None = None) -> None:
    """Creates a process work pool, if it is not there yet."""
    pool = {"name": name, "type": "process", "concurrency_limit": limit}
    answer = ask("POST", f"{api}/work_pools/", pool)
    assert answer.status_code in {201, 409}, answer.text


async def deploy(pool: str, name: str | None = None, *, quickly: bool = True) -> None:
    """Deploys the installed flows to a pool, by its name if they are not to have another.

    Without a command of its own a process pool starts one Python more for each run.
    """
    job_variables = {"command": f"{sys.executable} -m prefect.engine"} if quickly else {}
    async with get_client() as client:
        for flow in (run_command, run_plan):
            await client.create_deployment(
                await client.create_flow_from_name(flow.name),
                name=name or pool,
                work_pool_name=pool,
                entrypoint=f"cloudops_prefect.flows.{flow.fn.__name__}",
                pull_steps=[],
                parameter_openapi_schema=parameter_schema(flow).model_dump(),
                enforce_parameter_schema=True,
                job_variables=job_variables,
            )


def deployments(name: str) -> Deployments:
    """What `deploy` has made."""
    return Deployments(command=f"run-command/{name}", plan=f"run-plan/{name}")


@contextmanager
def process_worker(
    api: str, home: Path, pool: str = POOL, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process worker that polls every second; it ends with everything that it started."""
    env = environment(api, home) | {"PREFECT_WORKER_QUERY_SECONDS": "1"} | variables
    argv = ["worker", "start", "--type", "process", "--pool", pool, "--name", home.name]
    with (home / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", *argv],
            env=env,
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: _is_online(api, pool, home.name, worker), 240)
        yield worker
    finally:
        _end(worker, home)


def _is_online(api: str, pool: str, name: str, worker: subprocess.Popen[bytes]) -> bool:
    assert worker.poll() is None, "the worker has ended"
    answer = ask("POST", f"{api}/work_pools/{pool}/workers/filter", {})
    return any(one["name"] == name for one in answer.json())


def _end(worker: subprocess.Popen[bytes], home: Path) -> None:
    started = _started_by(home)
    worker.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        worker.wait(10)
    worker.kill()
    worker.wait(10)
    for process in (left := [*started, *_started_by(home)]):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def _started_by(home: Path) -> list[psutil.Process]:
    """Everything that has the worker's environment: of a killed worker it is nobody's child."""
    return [process for process in psutil.process_iter() if _has_home(process, home)]


def _has_home(process: psutil.Process, home: Path) -> bool:
    with suppress(psutil.Error):
        return process.environ().get("PREFECT_HOME") == str(home / "prefect")
    return False


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.1)
