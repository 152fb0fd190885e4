"""What people see of a run while it goes on."""

import io
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from in_process import Cloudops
from rich.console import Console
from terminals import Terminal, terminal

from cloudops_prefect.cli.event_lines import PlanLines
from cloudops_prefect.cli.grouped_lines import GroupedLines
from cloudops_prefect.cli.live_state import RunState
from cloudops_prefect.cli.live_view import LiveView
from cloudops_prefect.cli.picture import CommandFacts, RunFacts
from cloudops_prefect.cli.plain_text import coloured, plain, printable
from cloudops_prefect.cli.views import LineView
from cloudops_prefect.models import (
    CompletedEvent,
    ExecutionPlan,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    FailedEvent,
    ShellCommand,
    StartedEvent,
    StdoutEvent,
)

ROOT = Path(__file__).parents[1]
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PLAN = """
description: Release
commands:
  - {{name: check, run: echo checked}}
  - name: build
    run: printf "\\033[31mstep 1\\033[0m\\n"; {gate}; echo wrong >&2; exit 3
    needs: check
  - {{name: lint, run: 'echo linting; {gate}', needs: check}}
  - {{name: tell, run: echo told, needs: build}}
"""


def cloudops(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "cloudops_prefect", *arguments]


@pytest.fixture
def env(prefect_api, tmp_path) -> dict[str, str]:
    ours = {"PREFECT_API_URL": prefect_api, "CLOUDOPS_LOG_DIR": str(tmp_path / "logs")}
    # Prefect's notice on usage data is for people.
    return os.environ | ours | {"PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1"}


@pytest.fixture
def gate(tmp_path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def plan(tmp_path, gate) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.format(gate=f"until test -e {gate}; do sleep 0.05; done"))
    return path


def is_running(screen: Terminal, name: str) -> bool:
    return any(re.match(f"[{SPINNER}] {name} ", line) for line in screen.lines)


def both_run(screen: Terminal) -> bool:
    return is_running(screen, "build") and is_running(screen, "lint")


@pytest.mark.server
def test_a_terminal_shows_where_each_command_stands_and_then_how_it_ended(env, plan, gate):
    with terminal(cloudops("run", plan), env) as screen:
        screen.until(lambda: both_run(screen) and screen.line("✓ check").endswith("checked"))
        # Each frame is written from its top to its last line.
        screen.until(lambda: any("step 1" in line for line in screen.lines) and screen.line("UI: "))
        heading, *commands, address = screen.lines
        assert re.fullmatch(r"Release  ━{5}─{15}  1 of 4  [\d.]+s", heading)
        assert [line.split()[1] for line in commands] == ["check", "build", "lint", "tell"]
        assert commands[3] == "· tell"
        assert address.startswith("UI: ")
        assert screen.colour("check") == "green"
        assert screen.colour("build") == "blue"
        gate.touch()
        assert screen.wait() == 1
        assert not screen.line("Release")
        assert re.match(r"build +failed +3 ", screen.line("build"))
        shown = screen.lines
        at = shown.index("build: Command failed with exit code 3")
        assert shown[at + 1 : at + 3] == ["  | step 1", "  | wrong"]
        assert shown[at + 3].startswith("  log: ")
        assert screen.line("failed: 2 of 4 commands completed in ")


@pytest.mark.server
def test_ctrl_c_is_answered_above_the_view(env, plan):
    with terminal(cloudops("run", plan), env) as screen:
        screen.until(lambda: both_run(screen))
        screen.interrupt()
        assert screen.wait() == 130
        assert screen.line("Cancelling, and waiting for the processes")
        assert re.match(r"lint +cancelled", screen.line("lint"))


@pytest.mark.server
def test_a_window_that_is_closed_leaves_nothing_behind(prefect_api, env, tmp_path, plan):
    with terminal(cloudops("run", plan), env) as screen:
        screen.until(lambda: both_run(screen))
        screen.close()
        screen.process.wait(30)
    (newest,) = Cloudops(prefect_api, tmp_path / "logs").json("list", "--limit", "1")
    assert newest["status"] == "cancelled"


@pytest.mark.server
def test_what_one_process_runs_others_watch_without_colours_too(
    prefect_api, env, tmp_path, plan, gate
):
    with subprocess.Popen(cloudops("run", plan), env=env, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            lines = iter(running.stdout.readline, b"")
            assert any(line == b"[lint] linting\n" for line in lines)
            (newest,) = Cloudops(prefect_api, tmp_path / "logs").json("list", "--limit", "1")
            identifier = newest["id"]
            with terminal(cloudops("watch", "last"), env, columns=100) as left:
                left.until(lambda: both_run(left))
                left.interrupt()
                assert left.wait() == 130, left.lines
                assert left.line(f"It goes on; to watch it again: cloudops watch {identifier}")
            watch = ["env", "NO_COLOR=1", *cloudops("watch", identifier[:13])]
            with terminal(watch, env) as screen:
                screen.until(lambda: both_run(screen))
                gate.touch()
                assert screen.wait() == 1
                assert re.match(r"build +failed +3 ", screen.line("build"))
            assert not re.search(rb"\x1b\[[0-9;]*3[0-7]", screen.written)
            assert running.wait(30) == 1
        finally:
            running.kill()


@pytest.mark.server
def test_grouped_output_is_in_one_piece_a_command(prefect_api, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(
        "strategy: parallel\ncommands:\n"
        "  - {name: one, run: echo a; sleep 0.3; echo b}\n"
        "  - {name: two, run: sleep 0.1; echo c; sleep 0.4; echo d}\n"
    )
    done = Cloudops(prefect_api, tmp_path / "logs")("run", "--output", "grouped", path)
    names = [line.split("]")[0] for line in done.stdout.splitlines() if line.startswith("[")]
    assert names in (["[one"] * 3 + ["[two"] * 3, ["[two"] * 3 + ["[one"] * 3)
    assert "\x1b" not in done.stdout


@pytest.mark.server
def test_a_terminal_of_a_ci_system_gets_plain_lines(env, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("commands:\n  - {name: one, run: 'printf \"\\033[31mred\\033[0m\\n\"'}\n")
    with terminal(["env", "CI=true", *cloudops("run", path)], env) as screen:
        assert screen.wait() == 0
    assert b"\x1b" not in screen.written
    assert screen.lines[0] == "[one] red"
    assert screen.lines[-2].startswith("completed: 1 of 1 commands completed in ")


@pytest.mark.server
def test_interleaved_output_comes_as_it_is_printed_without_colours_in_a_pipe(env, tmp_path):
    first, second, path = tmp_path / "first", tmp_path / "second", tmp_path / "plan.json"
    wait = "until test -e {}; do sleep 0.05; done"
    commands = {
        "one": rf"printf '\033[31ma\033[0m\n'; {wait.format(second)}; echo b",
        "two": f"{wait.format(first)}; echo c",
    }
    named = [{"name": name, "run": line, "timeout": "2m"} for name, line in commands.items()]
    path.write_text(json.dumps({"strategy": "parallel", "commands": named}))
    argv = cloudops("run", "--output", "interleaved", path)
    lines, gates = [], [first, second]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("[") and "--" not in line:
                lines.append(line)
                # Two commands' lines have an order only if one is printed after the other is seen.
                for gate in gates[: len(lines)]:
                    gate.touch()
    assert lines == ["[one] a\n", "[two] c\n", "[one] b\n"]


def a_plan(count: int, **fields) -> ExecutionPlan:
    commands = [
        ExecutionRequest(name=f"command {i}", command=ShellCommand(command="true"))
        for i in range(count)
    ]
    return ExecutionPlan(commands=commands, **fields)


def a_state(plan: ExecutionPlan) -> RunState:
    return RunState(plan, [request.display_name for request in plan.commands])


def frame(state: RunState, width: int, height: int, now: datetime) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None
    )
    console.print(LiveView("Release", state, lambda _: "").frame(console, now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_two_hundred_commands_fit_on_the_screen_the_busy_ones_first():
    plan = a_plan(200, strategy={"type": "parallel"})
    state, now = a_state(plan), datetime.now(UTC)
    pending = CommandFacts(ExecutionStatus.PENDING)
    ended = CommandFacts(ExecutionStatus.COMPLETED, now, now)
    running = CommandFacts(ExecutionStatus.RUNNING, now - timedelta(seconds=75))
    failed = CommandFacts(ExecutionStatus.FAILED, now, now)
    state.learn(RunFacts([ended] * 100 + [failed] + [running] * 5 + [pending] * 94))
    lines = frame(state, 60, 14, now)
    assert len(lines) == 12
    assert max(map(len, lines)) < 60
    shown = [line.split()[2] for line in lines[1:11]]
    assert shown[-6:] == ["100", "101", "102", "103", "104", "105"]
    assert lines[-2].split()[-2:] == ["1m", "15s"]
    assert lines[-1] == "  and 190 more: 96 completed, 94 pending"
    assert lines[0].startswith("Release  ━━━━━━━━━━──────────  101 of 200")


def test_a_narrow_screen_cuts_lines_and_never_breaks_them():
    plan = a_plan(2)
    state, now = a_state(plan), datetime.now(UTC)
    ids = {"execution_id": uuid4(), "request_id": plan.commands[0].id}
    state.take(StartedEvent(command="x", **ids))
    state.take(StdoutEvent(line="long " * 50, **ids))
    lines = frame(state, 30, 24, now)
    assert len(lines) == 3
    assert max(map(len, lines)) < 30


def test_a_long_title_leaves_room_for_the_progress():
    state, now = a_state(a_plan(3)), datetime.now(UTC)
    for width in (80, 60):
        console = Console(file=io.StringIO(), width=width, height=24, color_system=None)
        console.print(LiveView("word " * 15 + "end", state, lambda _: "").frame(console, now))
        heading = console.file.getvalue().splitlines()[0]
        assert re.fullmatch(r"word .*…  ─{20}  0 of 3  0\.0s", heading)
        assert len(heading) == width - 1


def test_what_began_earlier_did_not_begin_when_it_is_attached_to():
    state, now = a_state(a_plan(1)), datetime.now(UTC)
    running = CommandFacts(ExecutionStatus.RUNNING, now)
    state.learn(RunFacts([running], began_at=now - timedelta(seconds=75)))
    assert frame(state, 80, 24, state.began_at + timedelta(seconds=75))[0].endswith("  1m 15s")
    state.learn(RunFacts([running], began_at=now))
    assert frame(state, 80, 24, state.began_at + timedelta(seconds=75))[0].endswith("  1m 15s")


def test_what_a_run_waits_for_is_shown_for_as_long_as_it_does(capsys):
    plan, now = a_plan(30), datetime.now(UTC)
    state, request = a_state(plan), plan.commands[0]
    pending = [CommandFacts(ExecutionStatus.PENDING)] * 30
    waiting, begun = RunFacts(pending, waits_for="It waits"), RunFacts(pending, began_at=now)
    started = StartedEvent(execution_id=uuid4(), request_id=request.id, command="true")
    for take, end in ((state.learn, begun), (state.take, started)):
        state.learn(waiting)
        lines = frame(state, 80, 24, now)
        assert (lines[1], len(lines)) == ("It waits", 22)
        take(end)
        assert "It waits" not in frame(state, 80, 24, now)
    view = LineView(lambda event: None)
    assert view.learn(waiting)
    assert capsys.readouterr().err == ""
    assert [view.learn(facts) for facts in (waiting, waiting, begun)] == [True, True, False]
    assert capsys.readouterr().err == "It waits\n"


@pytest.mark.parametrize("lines", [PlanLines, GroupedLines])
def test_lines_of_equal_commands_are_told_apart(lines, capsys):
    (request,) = a_plan(1).commands
    plan = ExecutionPlan(commands=[request, request], strategy={"type": "parallel"})
    shown = lines(plan, ["true #0", "true #1"])
    first, second = ({"execution_id": uuid4(), "request_id": request.id} for _ in range(2))
    for ids in (first, second):
        shown.show(StartedEvent(command="x", **ids))
    for line, ids in (("one", first), ("two", second)):
        shown.show(StdoutEvent(line=line, **ids))
    for ids in (second, first):
        shown.show(FailedEvent(error="bad", **ids))
    told = capsys.readouterr().out.splitlines()
    assert {"[true #0] one", "[true #1] two"} < {*told}
    assert told[-1] == "[true #0] -- failed: bad"


def test_one_request_twice_is_two_commands():
    (request,) = a_plan(1).commands
    state = a_state(ExecutionPlan(commands=[request, request], strategy={"type": "parallel"}))
    first, second = ({"execution_id": uuid4(), "request_id": request.id} for _ in range(2))
    state.take(StartedEvent(command="x", **first))
    state.take(StartedEvent(command="x", **second))
    state.take(StdoutEvent(line="of the second", **second))
    assert [one.status for one in state.commands] == ["running", "running"]
    assert [one.last_line for one in state.commands] == ["", "of the second"]


def test_what_will_not_run_any_more_is_marked_at_once():
    plan = a_plan(3)
    state = a_state(plan)
    ids = {"execution_id": uuid4(), "request_id": plan.commands[0].id}
    state.take(StartedEvent(command="x", **ids))
    state.take(FailedEvent(error="Execution timeout after 5ms", **ids))
    assert [one.status for one in state.commands] == ["timeout", "cancelled", "cancelled"]
    assert state.ended == 3


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("10%\r50%\r99%", "99%"),
        ("50%\r", "50%"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b[2J\x1b[Hgone\x07", "gone"),
        ("a\tb", "a b"),
        ("\x9b31mred", "31mred"),
        ("\x1b", ""),
    ],
)
def test_a_line_of_output_cannot_move_the_cursor(line, shown):
    assert printable(line) == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("  a\tb ", "  a\tb "),
        ("10%\r99%\r", "99%"),
        ("\x1b[1mbold\x1b[0m\x07", "bold"),
        ("\x1b[K", ""),
    ],
)
def test_a_line_of_output_keeps_its_blanks_in_a_file(line, shown):
    assert plain(line) == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("  a\tb ", "  a\tb "),
        ("\x1b[31mred", "\x1b[31mred\x1b[0m"),
        ("a \x1b[1;31mred\x1b[0m b\x1b[K", "a \x1b[1;31mred\x1b[0m b\x1b[0m"),
        ("\x1b[2J\x1b[H\x1b[32mgone\x07\x1b[?25l", "\x1b[32mgone\x1b[0m"),
        ("\x1b[33m10%\r\x1b[33m99%\x1b[0m\r", "\x1b[33m99%\x1b[0m\x1b[0m"),
        ("\x1b[0m", ""),
    ],
)
def test_a_line_of_output_keeps_its_colours_on_a_screen_and_clears_nothing(line, shown):
    assert coloured(line) == shown


def test_grouped_lines_forget_what_is_too_much(capsys):
    plan = a_plan(1)
    ids = {"execution_id": uuid4(), "request_id": plan.commands[0].id}
    lines = GroupedLines(plan, ["flood"])
    for number in range(30):
        lines.show(StdoutEvent(line=f"{number} " + "x" * 99_998, **ids))
    assert capsys.readouterr().out == ""
    result = ExecutionResult(
        id=plan.commands[0].id, execution_id=uuid4(), status=ExecutionStatus.COMPLETED
    )
    lines.show(CompletedEvent(result=result, **ids))
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[flood\] -- 2[01] earlier lines are in its log only", first)
    assert second.startswith("[flood] 2")
    assert last == "[flood] -- completed in 0.0s"
