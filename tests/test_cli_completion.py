"""Shells that complete the command line."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from terminals import terminal

from cloudops_prefect.cli.app import run_tokens

IN_BASH = """
COMP_WORDS=(cloudops {words})
COMP_CWORD={position}
$(complete -p cloudops | grep -o "_[a-z_]*")
echo "${{COMPREPLY[@]}}"
"""
ZSHRC = """\
PS1='> '
fpath=({directory} $fpath)
autoload -Uz compinit
compinit -u -D
{eval}
"""


@pytest.fixture
def script(request, capsys) -> str:
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert run_tokens(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("script", ["bash", "zsh", "fish"], indirect=True)
def test_shells_are_told_of_every_command_and_option(script):
    assert all(word in script for word in ("timeline", "dry-run", "work-pool", "rrule"))


@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("words", "completed"),
    [("tim", "timeline"), ("ls --ta", "--tag"), ("status la", "last"), ("logs la", "last")],
)
def test_bash_completes_commands_options_and_the_newest_run(script, words, completed):
    line = IN_BASH.format(words=words, position=len(words.split()))
    done = subprocess.run(["bash"], input=f"{script}{line}", capture_output=True, text=True)
    assert done.stdout.split() == [completed], done.stderr


@pytest.mark.parametrize("how", ["a file in $fpath", "eval"])
@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh_completes_a_command(script, how, tmp_path):
    file = tmp_path / ("_cloudops" if how != "eval" else "evaluated")
    file.write_text(script)
    evaluated = f'eval "$(< {file})"' if how == "eval" else ""
    (tmp_path / ".zshrc").write_text(ZSHRC.format(directory=tmp_path, eval=evaluated))
    env = os.environ | {"ZDOTDIR": str(tmp_path), "HOME": str(tmp_path)}
    with terminal(["zsh", "-i"], env) as screen:
        screen.until(lambda: screen.line(">"))
        screen.type("cloudops tim\t")
        screen.until(lambda: "timeline" in screen.lines[-1])
        # The second time nothing has to be loaded any more.
        screen.type("\x15cloudops list --status run\t")
        screen.until(lambda: "running" in screen.lines[-1])


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_completes_commands_and_the_files_of_those_that_take_one(script, tmp_path):
    (tmp_path / "times.yaml").touch()
    assert _completed_by_fish(script, "cloudops tim", tmp_path) == ["timeline"]
    assert _completed_by_fish(script, "cloudops run tim", tmp_path) == ["times.yaml"]
    assert _completed_by_fish(script, "cloudops server ", tmp_path) == [
        "env",
        "start",
        "status",
        "stop",
    ]
    assert _completed_by_fish(script, "cloudops logs la", tmp_path) == ["last"]


def _completed_by_fish(script: str, line: str, directory: Path) -> list[str]:
    fish = ["fish", "--no-config", "-c", f'{script}\ncomplete -C "{line}"']
    env = os.environ | {"HOME": str(directory)}
    done = subprocess.run(fish, cwd=directory, env=env, capture_output=True, text=True, check=True)
    return [one.split("\t")[0] for one in done.stdout.splitlines()]
