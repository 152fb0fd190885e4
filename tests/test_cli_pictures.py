"""Plans as pictures, without a Prefect API."""

import io
import json
import random
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from cloudops_prefect.cli import drawing, picture_text, printing, timeline
from cloudops_prefect.cli.app import run_tokens
from cloudops_prefect.cli.layout import places
from cloudops_prefect.cli.picture import CommandFacts, Picture
from cloudops_prefect.cli.plan_tree import print_tree, tree_of
from cloudops_prefect.models import (
    DependencyGraphStrategy,
    ExecutionPlan,
    ExecutionRequest,
    ExecutionStatus,
    ParallelStrategy,
    SerialStrategy,
    ShellCommand,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
RELEASE = Path(__file__).parents[1] / "examples/release.yaml"


def plan_of(names, strategy=None) -> ExecutionPlan:
    commands = [ExecutionRequest(name=name, command=ShellCommand(command="true")) for name in names]
    return ExecutionPlan(
        description="Release", commands=commands, strategy=strategy or SerialStrategy()
    )


def ran(begin: float, seconds: float, status: str = "completed") -> CommandFacts:
    started = START + timedelta(seconds=begin)
    return CommandFacts(ExecutionStatus(status), started, started + timedelta(seconds=seconds))


def large(kind: str) -> ExecutionPlan:
    chance = random.Random(7)
    strategies = {
        "serial": SerialStrategy(),
        "parallel": ParallelStrategy(),
        "graph": DependencyGraphStrategy(
            dependencies={
                index: [chance.randrange(max(0, index - 40), index)] for index in range(1, 200)
            }
        ),
    }
    return plan_of([f"command {index}" for index in range(200)], strategies[kind])


@pytest.fixture
def diamond() -> Picture:
    strategy = DependencyGraphStrategy(dependencies={1: [0], 2: [0], 3: [1, 2], 4: [3]})
    facts = [
        ran(0, 1),
        ran(1, 9),
        ran(1, 2, "failed"),
        ran(10, 3),
        CommandFacts(ExecutionStatus.CANCELLED),
    ]
    return Picture.of(plan_of(["check", "build", 'te"st', "deploy", "tell"], strategy), facts)


def rendered(renderable) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def test_the_tree_has_each_command_once(capsys):
    assert run_tokens(["graph", str(RELEASE)]) == 0
    assert capsys.readouterr().out == (
        "Release the examples  6 commands, dependency graph\n"
        "└── preflight\n"
        "    ├── build\n"
        "    └── unit tests\n"
        "        ↓ deploy  (also after build)\n"
        "        ├── smoke test\n"
        "        └── announce\n"
    )


@pytest.mark.parametrize("kind", ["serial", "parallel", "graph"])
def test_a_large_tree_stays_narrow(kind):
    lines = rendered(tree_of(Picture.of(large(kind)))).splitlines()
    assert len(lines) == 201
    assert max(map(len, lines)) <= 100


def test_the_tree_of_a_run_has_states_durations_and_the_critical_path(diamond):
    assert diamond.critical_path == [0, 1, 3]
    text = rendered(tree_of(diamond))
    assert "✓ check  1.0s *\n" in text
    assert '✗ te"st  2.0s\n' in text
    assert "✓ deploy  3.0s *  (also after build)" in text
    assert "- tell\n" in text
    assert "✓" not in rendered(tree_of(diamond, plain=True))


def test_mermaid_and_dot_tell_the_same(diamond):
    mermaid = "\n".join(picture_text.mermaid(diamond))
    assert mermaid.startswith("flowchart LR\n")
    assert '  c2["te#34;st<br>failed 2.0s"]:::failed' in mermaid
    assert "  c0 ==> c1\n  c0 --> c2\n  c1 ==> c3\n  c2 --> c3\n" in mermaid
    assert "  classDef failed fill:#f7c6c5" in mermaid
    dot = "\n".join(picture_text.dot(diamond))
    assert '  c2 [label="te\\"st\\nfailed 2.0s", fillcolor="#f7c6c5"];' in dot
    assert "  c0 -> c1 [penwidth=3];\n  c0 -> c2;\n" in dot


@pytest.mark.parametrize("kind", ["serial", "parallel", "graph"])
def test_a_large_picture_is_neither_a_ribbon_nor_a_tower(kind):
    picture = Picture.of(large(kind))
    found = places(picture, 3.6)
    assert len({(place.column, place.row) for place in found.values()}) == 200
    for before, after in picture.graph.edges:
        if found[before].band == found[after].band:
            forward = found[before].column < found[after].column
            assert forward == (found[before].band % 2 == 0)
        else:
            assert found[before].row < found[after].row
    columns = 1 + max(place.column for place in found.values())
    rows = 1 + max(place.row for place in found.values())
    assert 1 / 2 < columns * 3.6 / rows < 5


def test_svg_and_png_are_drawn(diamond, tmp_path):
    svg = drawing.draw(diamond, "svg")
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<!-- deploy" in svg
    image = Image.open(io.BytesIO(drawing.draw(diamond, "png")))
    assert image.size[0] > image.size[1] > 100
    colours = {colour for _, colour in image.convert("RGB").getcolors(100_000)}
    fills = {tuple(bytes.fromhex(picture_text.FILLS[s][1:])) for s in ("completed", "failed")}
    assert fills <= colours
    assert tuple(bytes.fromhex(picture_text.FILLS["running"][1:])) not in colours
    assert run_tokens(["graph", str(RELEASE), "-o", str(tmp_path / "plan.svg")]) == 0
    assert (tmp_path / "plan.svg").read_bytes().startswith(b"<?xml")


def test_a_long_title_is_drawn_whole():
    picture = Picture.of(plan_of(["one", "two"], ParallelStrategy()))
    long = replace(picture, title="Release the shop and everything around it, in the right order")
    with Image.open(io.BytesIO(drawing.draw(long, "png"))) as png:
        right = png.convert("L").crop((png.width - 10, 0, png.width, png.height))
        assert right.getextrema() == (255, 255)


def test_what_is_not_in_a_file_goes_to_standard_output():
    argv = [sys.executable, "-m", "cloudops_prefect", "graph", str(RELEASE), "--format", "png"]
    done = subprocess.run(argv, capture_output=True, check=True)
    assert done.stdout.startswith(b"\x89PNG")


def test_without_matplotlib_the_error_names_the_extra(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    output = tmp_path / "plan.png"
    assert run_tokens(["graph", str(RELEASE), "--output", str(output)]) == 1
    assert "the extra `draw` brings: pip install matplotlib" in capsys.readouterr().err
    assert not output.exists()


def test_an_output_of_another_kind_is_refused(capsys, tmp_path):
    assert run_tokens(["graph", str(RELEASE), "--output", str(tmp_path / "plan.gif")]) == 2
    assert "plan.gif" in capsys.readouterr().err


def test_the_graph_is_there_for_programs(capsys):
    assert run_tokens(["graph", str(RELEASE), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["commands"][3] == {"index": 3, "name": "deploy", "after": [1, 2]}


def test_the_timeline_shows_who_ran_when(diamond, capsys):
    timeline.print_timeline(diamond)
    title, scale, check, build, test, deploy, idle = capsys.readouterr().out.splitlines()
    assert title == "Release  5 commands, dependency graph"
    assert scale.endswith("+13s")
    bars = {line.split()[0]: (line.find("█"), line.count("█")) for line in (check, build, deploy)}
    (at_check, check_long), (at_build, build_long), (at_deploy, _) = bars.values()
    assert at_build == at_check + check_long
    assert at_deploy == at_build + build_long
    assert 8 <= build_long / check_long <= 10
    assert test.endswith("2.0s failed")
    assert idle == "did not run: tell"


def test_the_timeline_of_two_hundred_commands_has_a_row_for_each(capsys):
    facts = [ran(index, 1.5) for index in range(200)]
    timeline.print_timeline(Picture.of(large("parallel"), facts))
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == 200
    assert all("█" in row for row in rows)
    assert max(map(len, rows)) <= 100
    assert rows[0].index("█") < rows[100].index("█") < rows[199].index("█")


@pytest.mark.parametrize("width", [40, 60])
@pytest.mark.parametrize("shown", [timeline.print_timeline, print_tree])
def test_a_narrow_screen_has_a_row_for_each_command(shown, width, capsys, monkeypatch):
    monkeypatch.setattr(printing, "on_screen", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    plan = plan_of(["日本語 " * 12, "a name that is longer " * 4], ParallelStrategy())
    shown(Picture.of(plan, [ran(0, 1), ran(1, 2, ExecutionStatus.CANCELLED)]))
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "…" in line and not line.startswith("*")]
    assert [cell_len(row) <= width for row in rows] == [True, True]


def test_colours_in_a_pipe_make_no_bar_longer(diamond, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    timeline.print_timeline(diamond)
    printed = capsys.readouterr().out
    assert "\x1b[32m" in printed
    assert max(map(len, printed.splitlines())) < 150


def test_what_is_neither_a_file_nor_an_id_is_called_so(capsys):
    assert run_tokens(["graph", "plan.yam"]) == 2
    assert "'plan.yam' is neither a file nor an id" in capsys.readouterr().err


def test_a_file_that_is_called_like_an_id_is_ambiguous(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("2026").write_text("commands: [{run: a, name: only}]")
    assert run_tokens(["graph", "2026"]) == 2
    told = capsys.readouterr().err
    assert "'2026' is ambiguous: it is a file here, and can be the beginning of an id" in told
    assert run_tokens(["graph", "./2026"]) == 0
    assert "only" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--output", "graph.svg"], ["--format", "tree"]])
def test_json_goes_with_no_other_form(option, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_tokens(["graph", str(RELEASE), "--json", *option]) == 2
    assert "--json" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_reader_of_a_picture_may_leave():
    argv = [sys.executable, "-m", "cloudops_prefect", "graph", str(RELEASE), "--format", "svg"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
