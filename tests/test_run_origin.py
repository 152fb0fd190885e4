"""Where a local run was started, and where a resume of it runs."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from engines import gated, shell, until
from in_process import Cloudops
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import AwaitingRetry
from workers import ask, create_pool, deploy, deployments

from cloudops_prefect import (
    ExecutionConfig,
    ExecutionEngine,
    ExecutionPlan,
    ExecutionRequest,
    ExecutionStatus,
    InvalidWorkingDirError,
    PlanFile,
    ScriptCommand,
    compile_plan,
    load_plan,
    run_command,
)
from cloudops_prefect.run_origin import DIRECTORY_LABEL, PLAN_FILE_LABEL, RunOrigin

pytestmark = pytest.mark.anyio

POOL = "run-origin"
NEEDS_APPROVAL = "pwd; test -e approved"


def flow_run(**labels: str) -> FlowRun:
    return FlowRun(flow_id=uuid4(), labels=labels)  # pyright: ignore[reportCallIssue]


def script(path: str, **fields) -> ExecutionRequest:
    return ExecutionRequest(command=ScriptCommand(path=Path(path)), **fields)


def set_labels(api: str, execution_id, labels: dict[str, str]) -> None:
    ask("PATCH", f"{api}/flow_runs/{execution_id}/labels", labels)


async def read_flow_run(execution_id) -> FlowRun:
    async with get_client() as client:
        return await client.read_flow_run(execution_id)


def set_state(api: str, execution_id, state) -> None:
    body = {"state": {"type": state.type.value, "name": state.name}, "force": True}
    ask("POST", f"{api}/flow_runs/{execution_id}/set_state", body)


@dataclass(frozen=True)
class Places:
    """Two directories, and the way of this process into one."""

    first: Path
    second: Path
    go: Callable[[Path], None]


@pytest.fixture
def places(tmp_path, monkeypatch) -> Places:
    """This process is in the first; the second has what the command waits for."""
    places = Places(tmp_path / "first", tmp_path / "second", monkeypatch.chdir)
    places.first.mkdir()
    places.second.mkdir()
    (places.second / "approved").touch()
    places.go(places.first)
    return places


async def resumed(engine: ExecutionEngine, execution_id) -> tuple[str, str]:
    """Resumes a run; returns how it ended and what it printed."""
    await engine.resume(execution_id)
    await engine.wait(execution_id)
    result = await engine.get_result(execution_id)
    return result.status.value, result.stdout


class TestLabels:
    @pytest.mark.parametrize(
        "path", ["/srv/shop", "/srv/a b%20c#d?e", "/srv/Größe", os.fsdecode(b"/srv/d\xe9"), "/"]
    )
    def test_hold_any_path(self, path):
        origin = RunOrigin(Path(path), "build-1", PlanFile(Path(path) / "plan.yaml", "ab12"))
        labels = origin.labels()
        assert all(value.isascii() for value in labels.values())
        assert RunOrigin.of_run(flow_run(**labels)) == origin

    def test_are_absent_from_a_run_without_an_origin(self):
        assert RunOrigin().labels() == {}
        assert RunOrigin.of_run(flow_run(team="web")) == RunOrigin()

    @pytest.mark.parametrize("value", ["", "srv", "http://build-1/srv", "file:srv"])
    def test_of_others_are_not_believed(self, value):
        assert RunOrigin.of_run(flow_run(**{DIRECTORY_LABEL: value})) == RunOrigin()


class TestPlanFiles:
    def test_a_change_is_noticed(self, tmp_path):
        path = tmp_path / "plan.yaml"
        path.write_text("one")
        file = PlanFile.read(path)
        assert file is not None
        assert not file.has_changed()
        path.write_text("two")
        assert file.has_changed()
        path.unlink()
        assert not file.has_changed()

    def test_a_relative_path_is_kept_as_an_absolute_one(self, places):
        (places.first / "plan.yaml").touch()
        file = PlanFile.read("plan.yaml")
        assert file is not None
        assert file.path == places.first / "plan.yaml"

    def test_what_can_be_read_only_once_is_none(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", tmp_path / "none", tmp_path, "/dev/stdin", "/dev/null"):
            assert PlanFile.read(path) is None


@pytest.mark.server
class TestResume:
    @pytest.mark.parametrize("is_plan", [True, False])
    async def test_runs_where_the_run_was_started(self, api, config, places, is_plan):
        request = shell(NEEDS_APPROVAL)
        async with ExecutionEngine(config) as engine:
            if is_plan:
                execution_id = await engine.execute_plan(ExecutionPlan(commands=[request]))
            else:
                execution_id = await engine.execute(request)
            await engine.wait(execution_id)
        places.go(places.second)
        async with ExecutionEngine(config) as engine:
            assert await resumed(engine, execution_id) == ("failed", f"{places.first}\n")
            (places.first / "approved").touch()
            assert await resumed(engine, execution_id) == ("completed", f"{places.first}\n")

    @pytest.mark.parametrize("is_plan", [True, False])
    async def test_runs_a_flow_where_it_was_called(self, api, config, places, is_plan, monkeypatch):
        monkeypatch.setenv("CLOUDOPS_LOG_DIR", str(config.log_dir))
        request = shell(NEEDS_APPROVAL)
        if is_plan:
            flow = compile_plan(ExecutionPlan(commands=[request]))
            state = await flow(return_state=True)
        else:
            state = await run_command(request, return_state=True)
        assert state.is_failed()
        places.go(places.second)
        async with ExecutionEngine(config) as engine:
            execution_id = state.state_details.flow_run_id
            assert await resumed(engine, execution_id) == ("failed", f"{places.first}\n")

    async def test_runs_there_too_what_the_ui_has_scheduled_again(self, api, config, places):
        async with ExecutionEngine(config) as engine:
            execution_id = await engine.execute(shell(NEEDS_APPROVAL))
            await engine.wait(execution_id)
        set_state(api, execution_id, AwaitingRetry())
        places.go(places.second)
        async with ExecutionEngine(config) as engine:
            assert await resumed(engine, execution_id) == ("failed", f"{places.first}\n")

    @pytest.mark.skipif(sys.platform != "linux", reason="macOS takes only names in UTF-8")
    async def test_runs_in_a_directory_whose_name_is_not_utf_8(self, api, config, places):
        directory = anyio.Path(os.fsdecode(os.fsencode(places.first) + b"/d\xe9"))
        await directory.mkdir()
        places.go(Path(directory))
        async with ExecutionEngine(config) as engine:
            execution_id = await engine.execute(shell("echo ran >> here; test -e approved"))
            await engine.wait(execution_id)
            places.go(places.second)
            assert await resumed(engine, execution_id) == ("failed", "")
        assert await (directory / "here").read_text() == "ran\nran\n"

    async def test_is_refused_where_the_directory_does_not_exist(self, api, config, places):
        first = places.first
        async with ExecutionEngine(config) as engine:
            execution_id = await engine.execute(shell("false"))
            await engine.wait(execution_id)
            places.go(places.second)
            first.rmdir()
            with pytest.raises(InvalidWorkingDirError, match=f"{first} does not exist; the run"):
                await engine.resume(execution_id)
            # Nothing has begun again.
            assert await engine.get_status(execution_id) is ExecutionStatus.FAILED
            first.write_text("")
            with pytest.raises(InvalidWorkingDirError, match=f"{first} is not a directory"):
                await engine.resume(execution_id)

    async def test_names_the_machine_that_has_the_directory(self, api, config, places):
        async with ExecutionEngine(config) as engine:
            execution_id = await engine.execute(shell("false"))
            await engine.wait(execution_id)
            set_labels(api, execution_id, {DIRECTORY_LABEL: f"file://build-1{places.first}/none"})
            with pytest.raises(InvalidWorkingDirError, match=r"started there on build-1 \(this"):
                await engine.resume(execution_id)

    async def test_runs_here_what_has_no_directory_and_keeps_this_one(self, api, config, places):
        async with ExecutionEngine(config) as engine:
            execution_id = await engine.execute(shell("pwd; false"))
            await engine.wait(execution_id)
            # As an earlier version of this package leaves a run.
            set_labels(api, execution_id, {DIRECTORY_LABEL: ""})
            for directory in (places.second, places.first):
                places.go(directory)
                assert await resumed(engine, execution_id) == ("failed", f"{places.second}\n")


@pytest.mark.server
class TestACallerThatGoesElsewhere:
    async def test_takes_no_path_of_its_run_along(self, api, places):
        first, second = places.first, places.second
        (first / "sub").mkdir()
        (first / "sub/where.sh").write_text("pwd")
        commands = [
            gated(first / "gate"),
            shell("pwd", output_log_path=Path("copy.log")),
            shell("pwd", working_dir=Path("sub")),
            script("sub/where.sh"),
            script("where.sh", working_dir=Path("sub")),
            shell("pwd", working_dir=second),
        ]
        async with ExecutionEngine(ExecutionConfig(log_dir=Path("logs"))) as engine:
            execution_id = await engine.execute_plan(ExecutionPlan(commands=commands))
            places.go(second)
            (first / "gate").touch()
            results = (await engine.wait(execution_id)).results
            log_path = engine.get_log_path(results[1].execution_id)
        assert [one.stdout for one in results[1:]] == [
            f"{place}\n" for place in (first, first / "sub", first, first / "sub", second)
        ]
        assert (first / "copy.log").read_text() == f"{first}\n"
        assert log_path == results[1].log_path == first / "logs" / log_path.name
        assert log_path.read_text() == f"{first}\n"
        assert [*second.iterdir()] == [second / "approved"]

    async def test_leaves_its_flow_where_it_was_called(self, api, config, places):
        gate = places.first / "gate"
        plan = ExecutionPlan(commands=[gated(gate), shell("pwd")])

        async def is_ready() -> bool:
            return any(log.stat().st_size for log in config.resolved_log_dir.glob("*.log"))

        async def go_elsewhere() -> None:
            await until(is_ready)
            places.go(places.second)
            gate.touch()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(go_elsewhere)
            result = await compile_plan(plan, config)()
        assert result.results[1].stdout == f"{places.first}\n"


@pytest.mark.server
async def test_a_command_sees_the_links_by_which_its_caller_came(api, config, tmp_path, places):
    link = tmp_path / "link"
    link.symlink_to(places.second)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(link)
        patch.setenv("PWD", str(link))
        async with ExecutionEngine(config) as engine:
            execution_id = await engine.execute(shell("pwd; pwd -P; false"))
            printed = (await engine.wait(execution_id)).stdout
    assert printed == f"{link}\n{places.second}\n"
    # A link that leads elsewhere by then does not lead the resume.
    link.unlink()
    async with ExecutionEngine(config) as engine:
        assert (await resumed(engine, execution_id))[1] == f"{places.second}\n" * 2


@pytest.mark.server
async def test_nothing_starts_in_a_directory_that_was_removed(api, config, tmp_path, places):
    places.first.rmdir()
    elsewhere = shell("pwd", working_dir=tmp_path)
    async with ExecutionEngine(config) as engine:
        for request in (shell("pwd"), shell("pwd", working_dir=Path("sub"))):
            with pytest.raises(InvalidWorkingDirError, match="the current directory: No such"):
                await engine.execute(request)
            with pytest.raises(InvalidWorkingDirError, match="an absolute working_dir"):
                await engine.execute_plan(ExecutionPlan(commands=[elsewhere, request]))
        result = await engine.wait(await engine.execute(elsewhere))
    assert (result.status, result.stdout) == (ExecutionStatus.COMPLETED, f"{tmp_path}\n")


@pytest.fixture
def cloudops(prefect_api, tmp_path) -> Cloudops:
    return Cloudops(prefect_api, tmp_path / "logs")


@pytest.mark.server
class TestResumeSays:
    PLAN = "commands:\n  - run: pwd; {}\n"

    @pytest.fixture
    def failed(self, cloudops, places) -> str:
        """A run of `my plan.yaml` in the first directory."""
        (places.first / "my plan.yaml").write_text(self.PLAN.format("false"))
        return cloudops.json("run", "my plan.yaml")["execution_id"]

    def test_that_the_plan_is_as_it_was_started_and_where(self, cloudops, places, failed):
        again = cloudops("resume", failed)
        assert f"note: the plan runs as it was started, in {places.first}\n" in again.stderr
        assert "has changed" not in again.stderr
        assert "note:" not in cloudops("resume", "--quiet", failed).stderr

    def test_that_the_file_has_changed_and_how_to_run_it(self, cloudops, places, failed):
        file = places.first / "my plan.yaml"
        file.write_text(self.PLAN.format("true"))
        changed = f"note: {file} has changed since; to run it as it is now: "
        again = cloudops("resume", failed)
        assert again.returncode == 1
        assert f"{changed}cloudops run '{file}'\n" in again.stderr
        places.go(places.second)
        again = cloudops("resume", "--quiet", failed)
        assert again.returncode == 1
        assert f"{changed}cd {places.first} && cloudops run '{file}'\n" in again.stderr

    def test_nothing_of_a_file_of_another_machine(self, cloudops, places, failed, api):
        (places.first / "my plan.yaml").write_text(self.PLAN.format("true"))
        # The names of machines are all that tells them apart.
        for label in (DIRECTORY_LABEL, PLAN_FILE_LABEL):
            path = places.first if label == DIRECTORY_LABEL else places.first / "my%20plan.yaml"
            set_labels(api, failed, {label: f"file://build-1{path}"})
        assert "has changed" not in cloudops("resume", failed).stderr

    def test_that_a_command_is_as_it_was_started(self, cloudops, places):
        failed = cloudops.json("shell", "false")["execution_id"]
        again = cloudops("resume", failed)
        assert f"note: the command runs as it was started, in {places.first}\n" in again.stderr

    def test_nothing_where_it_is_refused(self, cloudops, failed, places):
        (places.first / "my plan.yaml").unlink()
        places.go(places.second)
        places.first.rmdir()
        refused = cloudops("resume", failed)
        assert refused.returncode == 2
        assert "note:" not in refused.stderr


@pytest.mark.server
async def test_a_plans_file_is_kept_on_either_route(api, config, places):
    create_pool(api, POOL)
    await deploy(POOL)
    (places.first / "plan.yaml").write_text(TestResumeSays.PLAN.format("true"))
    plan, file = load_plan("plan.yaml"), PlanFile.read("plan.yaml")
    for route in (None, deployments(POOL)):
        async with ExecutionEngine(config, deployments=route) as engine:
            execution_id = await engine.execute_plan(plan, file=file)
            flow_run = await read_flow_run(execution_id)
            await engine.cancel(execution_id)
        origin = RunOrigin.of_run(flow_run)
        assert (origin.plan_file, origin.is_here) == (file, True)
        assert origin.directory == (None if route else places.first)
