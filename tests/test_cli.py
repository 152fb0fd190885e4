"""The command line against a real Prefect server: the local one, which it starts by itself."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from uuid import uuid4

import psutil
import pytest
from documents import steps
from in_process import run_captured
from prefect.settings import PREFECT_API_URL, temporary_settings
from servers import send_what_is_queued
from workers import POOL, create_pool

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[1]
PATIENCE = 120
"""Seconds; nothing takes as long, but what hangs does."""
SLEEPER = """
import os, subprocess, sys
child = subprocess.Popen(["sleep", "300"])
print("ready", os.getpid(), child.pid, flush=True)
child.wait()
"""
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", os.getpid(), flush=True)
while True:
    signal.pause()
"""


@dataclass(frozen=True)
class Cloudops:
    """`cloudops` with a home of its own."""

    env: dict[str, str]
    cwd: Path

    def __call__(
        self,
        *arguments: str | Path,
        timeout: float = 60,
        stdout: int | IO[str] = subprocess.PIPE,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._argv(arguments),
            env=self.env | env,
            cwd=self.cwd,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=timeout,
        )

    def look(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs `cloudops` in this process, which saves Prefect's import."""
        state = json.loads((self.cwd / "prefect" / "cloudops-server.json").read_text())
        settings = {PREFECT_API_URL: f"http://127.0.0.1:{state['port']}/api"}
        with pytest.MonkeyPatch.context() as patch, temporary_settings(settings):
            for name, value in self.env.items():
                patch.setenv(name, value)
            return run_captured(*arguments)

    def json(self, *arguments: str | Path):
        done = self.look(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def started(self, *arguments: str | Path, **env: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            self._argv(arguments),
            env=self.env | env,
            cwd=self.cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _argv(self, arguments):
        return [sys.executable, "-m", "cloudops_prefect", *arguments]


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ready_pids(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a sleeper names in its first line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "ready" in line, line
    return [int(pid) for pid in re.findall(r"\d+", line.partition("ready")[2])]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Iterator[Cloudops]:
    """Nothing is configured, and nothing runs yet."""
    home = tmp_path_factory.mktemp("home")
    others = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CLOUDOPS_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = others | {
        "PATH": path,
        "HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PYTHONPATH": str(ROOT),
        "CLOUDOPS_LOG_DIR": str(home / "logs"),
        "CLOUDOPS_GRACE_PERIOD_MS": "1000",
    }
    cloudops = Cloudops(env, home)
    # Prefect's worker of events stays with the server that it was begun with.
    send_what_is_queued()
    yield cloudops
    send_what_is_queued()
    assert cloudops("server", "stop").returncode == 0


@pytest.fixture(scope="module")
def first(fresh) -> subprocess.CompletedProcess[str]:
    """The very first command of a new user."""
    return fresh("exec", "--", "echo", "hello", timeout=300)


@pytest.fixture(scope="module")
def cloudops(fresh, first) -> Cloudops:
    assert first.returncode == 0, first.stderr
    return fresh


def write_plan(path: Path, *commands: dict, strategy: dict | None = None) -> Path:
    plan = {"strategy": strategy or {"type": "serial"}, "commands": list(commands)}
    path.write_text(json.dumps(plan))
    return path


def shell(command: str, **fields) -> dict:
    return {"command": {"type": "shell", "command": command}, **fields}


def test_the_first_command_starts_a_server_and_says_so_once(fresh, first):
    assert (first.returncode, first.stdout) == (0, "hello\n")
    assert "starting a local Prefect server" in first.stderr
    facts = json.loads(fresh("server", "status", "--json").stdout)
    assert facts["status"] == "running"
    assert f"its UI is at {facts['ui']}" in first.stderr
    second = fresh("exec", "--", "echo", "again")
    assert (second.returncode, second.stdout) == (0, "again\n")
    assert "server" not in second.stderr
    assert re.search(
        rf"UI: {re.escape(facts['ui'])}/runs/flow-run/[0-9a-f-]{{36}}\n", second.stderr
    )


def test_the_example_runs(cloudops):
    done = subprocess.run(
        [sys.executable, "-m", "cloudops_prefect", "run", "examples/release.yaml"],
        env=cloudops.env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "[announce] Version 1.4.0 is out" in lines
    assert any(line.startswith("[unit tests] Ran 2 tests") for line in lines)
    assert '[deploy]     "deploymentId": "deploymentId"' in lines
    assert lines[-2].startswith("completed: 6 of 6 commands completed in ")
    assert lines[-1].startswith("UI: http://127.0.0.1:")
    assert "\x1b" not in done.stdout


def in_shell(cloudops: Cloudops, line: str, shell: str = "bash"):
    """Runs a line as a person pastes it."""
    argv = [shell, "--no-config", "-c"] if shell == "fish" else [shell, "-euc"]
    return subprocess.run(
        [*argv, line],
        env=cloudops.env,
        cwd=cloudops.cwd,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_each_command_of_prefect_that_is_printed_works_when_it_is_pasted(cloudops, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("commands: [{exec: [echo, hi], working_dir: /}]")
    deploy = ["deploy", plan, "--name", "pasted", "--work-pool", "pasted"]
    refused = cloudops(*deploy)
    assert refused.returncode == 2
    made = in_shell(cloudops, refused.stderr.split("`")[1])
    assert made.returncode == 0, made.stdout + made.stderr
    told = dict(re.findall(r"^(.+?): +(.*)$", cloudops(*deploy).stdout, re.MULTILINE))
    both = [told["Before both"], told["Run it now"]]
    ran = in_shell(cloudops, "\n".join(both))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # It is a run at the local server, and not at a server of Prefect's command.
    assert len(cloudops.json("list", "--status", "pending")) == 1


def test_an_address_that_is_configured_is_not_told(cloudops, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("commands: [{exec: [echo, hi], working_dir: /}]")
    refused = cloudops.look("deploy", plan, "--name", "x", "--work-pool", "none")
    assert "`prefect work-pool create none" in refused.stderr
    create_pool(cloudops.json("server", "status")["api"])
    assert (
        "server env" not in cloudops.look("deploy", plan, "--name", "x", "--work-pool", POOL).stdout
    )


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", 'eval "$(cloudops server env)"'),
        ("sh", 'eval "$(cloudops server env --shell sh)"'),
        ("zsh", 'eval "$(cloudops server env --shell zsh)"'),
        ("fish", 'eval "$(cloudops server env)"'),
        ("fish", "cloudops server env --shell fish | source"),
    ],
)
def test_a_shell_is_given_the_address_of_the_local_server(cloudops, shell, line):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = in_shell(cloudops, f"{line}\nenv", shell)
    api = cloudops.json("server", "status")["api"]
    assert f"\nPREFECT_API_URL={api}\n" in done.stdout, done.stderr
    assert cloudops.json("server", "env") == {"PREFECT_API_URL": api}


def test_without_a_local_server_there_is_no_address(cloudops, tmp_path):
    done = cloudops("server", "env", PREFECT_HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("to start it: cloudops server start\n")


@pytest.mark.parametrize("page", ["README.md", "docs/deploying.md", "docs/flows.md"])
def test_pages_tell_prefect_the_address_of_the_local_server(cloudops, page, tmp_path):
    (step,) = [s for s in steps(ROOT / page) if s.block.remarks.get("needs") == "the local server"]
    # What a profile keeps is no setting of the other tests.
    env = cloudops.env | {"PREFECT_PROFILES_PATH": str(tmp_path / "profiles.toml")}
    told = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{step.block.text}\nprefect config view"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr
    assert f"PREFECT_API_URL='{cloudops.json('server', 'status')['api']}'" in told.stdout


def test_a_plan_fails_with_exit_code_1_and_a_summary(cloudops, tmp_path):
    plan = write_plan(
        tmp_path / "plan.json",
        shell("echo fine", name="first"),
        shell("echo wrong >&2; exit 3", name="second"),
        shell("echo never", name="third"),
    )
    done = cloudops("run", plan)
    assert done.returncode == 1
    assert "[first] fine" in done.stdout
    assert "[second] wrong" in done.stdout
    assert "never" not in done.stdout
    assert re.search(r"^second +failed +3 ", done.stdout, re.MULTILINE)
    assert re.search(r"^third +cancelled$", done.stdout, re.MULTILINE)
    assert "failed: 1 of 3 commands completed" in done.stdout


def test_the_result_of_a_plan_as_json_is_all_that_is_printed(cloudops, tmp_path):
    plan = write_plan(tmp_path / "plan.json", shell("echo one"), shell("echo two"))
    done = cloudops.look("run", "--json", plan)
    result = json.loads(done.stdout)
    assert (done.returncode, result["status"]) == (0, "completed")
    assert [command["stdout"] for command in result["results"]] == ["one\n", "two\n"]
    assert cloudops.json("result", result["execution_id"])["results"] == result["results"]


def test_a_quiet_run_prints_the_summary_only(cloudops, tmp_path):
    plan = write_plan(tmp_path / "plan.json", shell("echo one", name="only"))
    done = cloudops.look("run", "--quiet", plan)
    assert done.returncode == 0
    assert "[only]" not in done.stdout
    assert re.search(r"^only +completed +0 ", done.stdout, re.MULTILINE)


def test_a_run_warns_of_what_nothing_expands_and_ends_as_it_would(cloudops, tmp_path):
    plan = tmp_path / "plan.yaml"
    script = f"script: {tmp_path}/greet.sh $X 'a b'"
    plan.write_text(f"commands:\n- exec: echo $HOME\n- {script}\n")
    (tmp_path / "greet.sh").write_text('printf "[%s]" "$@"')
    done = cloudops.look("run", "--json", plan)
    told = done.stderr.splitlines()
    assert [line.partition(": no shell")[0] for line in told] == [
        f"warning: {plan}:2:9: commands[0].exec",
        f"warning: {plan}:3:11: commands[1].script",
    ]
    result = json.loads(done.stdout)
    assert (done.returncode, result["status"]) == (0, "completed")
    assert [one["stdout"] for one in result["results"]] == ["$HOME\n", "[$X][a b]"]
    assert cloudops.look("run", "--quiet", plan).stderr == ""


def test_who_runs_a_plan_is_told_that_fewer_run_at_once_than_it_allows(cloudops, tmp_path):
    strategy = {"type": "parallel", "max_concurrency": 50}
    plan = write_plan(tmp_path / "plan.json", *[shell("true")] * 11, strategy=strategy)
    note = (
        "note: max_concurrency 50: at most 10 at once here; "
        "CLOUDOPS_MAX_CONCURRENT_EXECUTIONS raises that\n"
    )
    for options, told in (([], note), (["--json"], note), (["--quiet"], "")):
        done = cloudops.look("run", *options, plan)
        assert (done.returncode, done.stderr) == (0, told)


@pytest.mark.parametrize(
    ("command", "code"), [("exit 7", 7), ("kill -TERM $$", 143), ("kill -HUP $$", 129)]
)
def test_a_commands_exit_code_is_ours(cloudops, command, code):
    assert cloudops.look("shell", command).returncode == code


def test_a_command_that_takes_too_long_is_124_as_with_timeout(cloudops):
    assert cloudops.look("shell", "--timeout", "1s", "sleep 60").returncode == 124


def test_a_long_text_runs_and_a_long_variable_is_refused_before_it(cloudops, tmp_path):
    commands = [shell(f": {'x' * 162_000}\necho done")]
    plan = write_plan(tmp_path / "long.json", *commands)
    done = cloudops("run", plan)
    assert (done.returncode, "] done\n" in done.stdout) == (0, True)
    write_plan(plan, *commands, shell("true", env={"VALUE": "x" * 140_000}))
    for command in ("validate", "run"):
        refused = cloudops(command, plan)
        assert refused.returncode == 2
        assert "commands[1].env.VALUE: env[VALUE] has 140006 bytes, but Linux" in refused.stderr
        assert "put it into a file and pass its name" in refused.stderr


def test_a_program_that_is_not_there_is_127_as_in_a_shell(cloudops):
    done = cloudops.look("exec", "--", "no-such-program")
    assert done.returncode == 127
    assert "Process spawn failed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["exec", "no-such-program"], 127, "failed: Process spawn failed: 'no-such-program': "),
        (["shell", "--env-from", "command-environment/none", "ls"], 127, "failed: "),
        (["shell", "--timeout", "1s", "echo began; sleep 60"], 124, "timeout: Execution timeout "),
        (["shell", "kill -KILL $$"], 137, "failed: Command failed with exit code -9: killed by "),
        (["shell", "exit 7"], 7, None),
        (["shell", "exit 0"], 0, None),
    ],
)
def test_a_quiet_command_is_told_of_only_where_it_could_not_tell(cloudops, arguments, code, told):
    name, *rest = arguments
    done = cloudops.look(name, "--quiet", *rest)
    assert done.returncode == code
    lines = done.stderr.splitlines()
    assert len(lines) == (0 if told is None else 1), lines
    assert done.stderr.startswith(told or "")


def test_each_stream_goes_to_its_own(cloudops):
    done = cloudops.look("shell", "--quiet", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_who_runs_a_command_is_warned_once_of_a_secret_too_short_to_be_replaced(cloudops):
    done = cloudops("shell", "--quiet", "echo abc", MY_TOKEN="abc")
    warning = (
        "warning: The value of MY_TOKEN is not replaced in output: it has fewer than 4 characters"
    )
    assert (done.stdout, done.stderr) == ("abc\n", f"{warning}\n")


def test_what_follows_two_dashes_is_passed_on_as_it_is(cloudops):
    code = "import sys; print(sys.argv[1:])"
    rest = ["--json", "--name", "x", "--", "-q", "", "a b"]
    done = cloudops.look("exec", "--quiet", "--", "python3", "-c", code, *rest)
    assert done.stdout == f"{rest}\n"


def test_the_aws_cli_gets_the_options_that_are_its_own(cloudops):
    arguments = ["put-parameter", "--name", "/shop/version", "--value", "1"]
    ours = ["--quiet", "--region", "eu-central-1"]
    done = cloudops.look("aws", *ours, "ssm", *arguments, "--generate-cli-skeleton", "output")
    assert done.returncode == 0, done.stderr
    assert "Version" in json.loads(done.stdout)


def test_the_options_of_a_command_arrive(cloudops, tmp_path):
    copy = tmp_path / "copy.log"
    arguments = ["--cwd", str(tmp_path), "--env", "GREETING=hi", "--log-copy", str(copy)]
    done = cloudops.look("shell", *arguments, "--name", "greeter", 'echo "$GREETING"; pwd')
    assert done.stdout == f"hi\n{tmp_path}\n"
    assert copy.read_text() == done.stdout
    assert "greeter" in {execution["name"] for execution in cloudops.json("list")}


def test_what_has_run_is_found_again(cloudops):
    result = json.loads(cloudops.look("shell", "--json", "echo out; echo err >&2; exit 4").stdout)
    identifier = result["execution_id"]
    assert cloudops.look("status", identifier).stdout == "failed\n"
    assert cloudops.json("status", identifier) == {"id": identifier, "status": "failed"}
    assert cloudops.json("result", identifier) == result
    assert re.search(r"^exit code: *4$", cloudops.look("result", identifier).stdout, re.MULTILINE)
    assert sorted(cloudops.look("logs", identifier).stdout.splitlines()) == ["err", "out"]
    followed = cloudops.look("logs", "-f", identifier)
    assert (followed.stdout, followed.stderr) == ("out\n", "err\n")
    newest = cloudops.json("list", "--limit", "1", "--status", "failed")
    assert [summary["id"] for summary in newest] == [identifier]
    assert identifier in cloudops.look("list", "--limit", "3").stdout


def test_logs_are_followed_while_they_are_written(cloudops, tmp_path):
    go = tmp_path / "go"
    wait = f"echo ready $$; until [ -e {go} ]; do sleep 0.05; done; echo done"
    with cloudops.started("shell", "--name", "slow", wait) as running:
        ready_pids(running)
        (summary,) = cloudops.json("list", "--status", "running")
        with cloudops.started("logs", "--follow", summary["id"]) as follower:
            assert ready_pids(follower)
            go.touch()
            assert follower.communicate(timeout=PATIENCE) == ("done\n", "")
            assert follower.returncode == 0
        assert running.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_cancels_and_waits_for_the_processes(cloudops, number, code):
    with cloudops.started("exec", "--", sys.executable, "-c", SLEEPER) as running:
        pids = ready_pids(running)
        running.send_signal(number)
        assert running.wait(PATIENCE) == code
        assert all(gone(pid) for pid in pids)
    (newest,) = cloudops.json("list", "--limit", "1")
    assert newest["status"] == "cancelled"


def test_a_second_ctrl_c_leaves_nothing_behind(cloudops):
    # The second one is to come before it is killed.
    patient = {"CLOUDOPS_GRACE_PERIOD_MS": "5000"}
    with cloudops.started("exec", "--", sys.executable, "-c", STUBBORN, **patient) as running:
        (pid,) = ready_pids(running)
        assert running.stderr is not None
        for answer in ("Cancelling", "Still waiting"):
            running.send_signal(signal.SIGINT)
            assert running.stderr.readline().startswith(answer)
        assert running.wait(PATIENCE) == 130
        assert gone(pid)


def test_ctrl_c_does_not_wait_until_a_flood_is_shown(cloudops, tmp_path):
    flag = tmp_path / "flag"
    flood = f"yes | head -c 10000000; touch {flag}; sleep 60"
    with cloudops.started("shell", flood) as running:
        # Nobody reads meanwhile.
        until(flag.exists)
        running.send_signal(signal.SIGINT)
        printed, told = running.communicate(timeout=PATIENCE)
        assert running.returncode == 130
    assert len(printed) < 10_000_000
    (newest,) = cloudops.json("list", "--limit", "1")
    assert f"The rest of its output is in its log: cloudops logs {newest['id']}\n" in told
    assert len(cloudops.look("logs", newest["id"]).stdout) == 10_000_000


@pytest.mark.parametrize("look", ["list", "graph"])
def test_what_is_looked_at_tells_of_a_process_that_was_killed(cloudops, look):
    with cloudops.started("exec", "--", sys.executable, "-c", SLEEPER) as running:
        pids = ready_pids(running)
        (newest,) = cloudops.json("list", "--limit", "1")
        assert newest["status"] == "running"
        running.kill()
        assert running.wait(PATIENCE) == -signal.SIGKILL
    until(lambda: all(gone(pid) for pid in pids))
    arguments = ["--limit", "1"] if look == "list" else [newest["id"]]
    told = cloudops.json(look, *arguments)
    (killed,) = told if look == "list" else told["commands"]
    assert killed["status"] == "failed"


def test_ctrl_c_cancels_a_plan(cloudops, tmp_path):
    sleeper = {"command": {"type": "exec", "program": sys.executable, "args": ["-c", SLEEPER]}}
    plan = write_plan(tmp_path / "plan.json", sleeper | {"name": "one"}, shell("true", name="two"))
    with cloudops.started("run", plan) as running:
        pids = ready_pids(running)
        running.send_signal(signal.SIGINT)
        printed, _ = running.communicate(timeout=PATIENCE)
        assert running.returncode == 130
        assert all(gone(pid) for pid in pids)
    assert re.search(r"^one +cancelled", printed, re.MULTILINE)
    assert re.search(r"^two +cancelled", printed, re.MULTILINE)


def test_one_terminal_cancels_what_another_runs(cloudops):
    with cloudops.started("exec", "--", sys.executable, "-c", SLEEPER) as running:
        pids = ready_pids(running)
        (summary,) = cloudops.json("list", "--status", "running")
        assert summary["duration"] != "PT0S"
        assert summary["id"] in cloudops.look("cancel", summary["id"]).stdout
        assert running.wait(PATIENCE) == 130
        assert all(gone(pid) for pid in pids)
    again = cloudops.look("cancel", summary["id"])
    assert again.returncode == 1
    assert again.stderr.startswith("error: Execution not running")


def test_an_unknown_id_is_an_error(cloudops):
    for command in ("status", "result", "logs", "cancel", "resume"):
        done = cloudops.look(command, str(uuid4()))
        assert done.returncode == 1, command
        assert done.stderr.startswith("error: Execution not found: "), command
        assert len(done.stderr.splitlines()) == 1, command


def test_what_is_refused_never_reaches_the_api(cloudops, tmp_path):
    before = cloudops.json("list", "--limit", "100")
    (tmp_path / "file").touch()
    loop = {"type": "dependency_graph", "dependencies": {"0": [0]}}
    missing = {"command": {"type": "script", "path": str(tmp_path / "absent.sh")}}
    plans = [
        write_plan(tmp_path / "loop.json", shell("true"), strategy=loop),
        write_plan(tmp_path / "script.json", shell("true"), missing),
        write_plan(tmp_path / "empty.json"),
    ]
    for done in [
        *(cloudops.look("run", plan) for plan in plans),
        cloudops.look("exec", "--cwd", tmp_path / "file", "--", "ls"),
        cloudops.look("exec", "--timeout", "1h", "--", "ls"),
    ]:
        assert done.returncode == 2, done.args
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
    assert cloudops.json("list", "--limit", "100") == before


def test_an_api_that_does_not_answer_is_one_line(cloudops):
    done = cloudops("list", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: IO error: the Prefect API at http://127.0.0.1:9/api")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves_does_not_stop_the_run(cloudops, tmp_path):
    done_file = tmp_path / "done"
    command = f"seq 100000; touch {done_file}"
    with cloudops.started("shell", command) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "1\n"
        running.stdout.close()
        assert running.wait(PATIENCE) == 0
    assert done_file.exists()


@pytest.mark.parametrize(("command", "code"), [("seq 3", 1), ("seq 3; exit 4", 4)])
def test_a_full_disk_does_not_stop_the_run_and_is_told(cloudops, command, code, tmp_path):
    done_file = tmp_path / "done"
    with Path("/dev/full").open("w") as full:
        done = cloudops("shell", f"trap 'touch {done_file}' EXIT; {command}", stdout=full)
    assert done.returncode == code
    assert "not all could be printed: <stdout>: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert done_file.exists()


def test_resume_runs_what_has_not_completed(cloudops, tmp_path):
    flag, count = tmp_path / "flag", tmp_path / "count"
    plan = write_plan(
        tmp_path / "plan.json", shell(f"echo x >> {count}"), shell(f"test -e {flag} && echo good")
    )
    failed = cloudops.look("run", "--json", plan)
    assert failed.returncode == 1
    flag.touch()
    resumed = cloudops.look("resume", json.loads(failed.stdout)["execution_id"])
    assert resumed.returncode == 0, resumed.stderr
    assert "2 of 2 commands completed" in resumed.stdout
    assert count.read_text() == "x\n"


def test_resume_runs_in_the_directory_of_the_run(cloudops, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    plan = write_plan(
        first / "plan.json", shell("pwd"), shell('pwd; touch "out-$STAGE"; test -e approved')
    )
    failed = replace(cloudops, cwd=first)("run", "--json", plan, STAGE="prod")
    execution_id = json.loads(failed.stdout)["execution_id"]
    (second / "approved").touch()
    resumed = replace(cloudops, cwd=second)("resume", "--json", execution_id, STAGE="test")
    results = json.loads(resumed.stdout)["results"]
    assert [one["status"] for one in results] == ["completed", "failed"]
    assert [one["stdout"] for one in results] == [f"{first}\n"] * 2
    assert {one.name for one in first.iterdir()} == {"plan.json", "out-prod", "out-test"}
    assert {one.name for one in second.iterdir()} == {"approved"}
    first.rename(tmp_path / "third")
    refused = replace(cloudops, cwd=second)("resume", execution_id)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: Invalid working directory: {first} does not exist; ")
