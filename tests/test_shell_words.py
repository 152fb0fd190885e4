"""Commands that people paste into a shell."""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudops_prefect.shell_words import command_line, option

PACKAGE = Path(__file__).parents[1] / "cloudops_prefect"


def read_by(shell: str, line: str) -> list[str]:
    """The words of a command line as a shell hands them to a program."""
    script = f"set -- {line}; printf '%s\\0' \"$@\""
    done = subprocess.run([shell, "-c", script], capture_output=True, check=True)
    return os.fsdecode(done.stdout).split("\0")[:-1]


# Bytes that are no UTF-8 are lone surrogates in names of files.
ANY_WORD = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.sampled_from([os.fsdecode(bytes([byte])) for byte in range(0x80, 0x100)])
).filter(lambda word: os.fsdecode(os.fsencode(word)) == word)


@given(words=st.lists(ANY_WORD, min_size=1, max_size=5))
@example(words=["nightly backup", "it's", '"', "$HOME", "`id`", "$(id)", "!!", "*", "~", "", "a;b"])
@example(words=["two\nlines", "\x1b[31m", "tab\t", "d\udce9", "d\udce9f", "\\x41", "é", "'\n"])
def test_a_shell_reads_the_words_that_were_meant(words):
    assert read_by("bash", command_line(*words)) == words


def test_what_a_terminal_would_obey_is_not_printed():
    assert command_line("cat", "a\n\x1b[31m'b") == r"cat $'a\x0a\x1b[31m\x27b'"


def test_each_shell_reads_what_is_printable():
    words = ["nightly backup", "it's", '"', "$HOME", "`id`", "é"]
    assert read_by("sh", command_line(*words)) == words


def test_nothing_is_taken_for_an_option():
    assert command_line("cloudops", "run", Path("-p.yaml")) == "cloudops run ./-p.yaml"
    assert option("--pool", "-x") == ["--pool=-x"]
    assert option("--pool", "x") == ["--pool", "x"]


def test_an_id_is_a_word():
    identifier = uuid4()
    assert command_line("cloudops", "logs", identifier) == f"cloudops logs {identifier}"


def unquoted(source: str) -> Iterator[str]:
    """The f-strings in which a value belongs to a command that is written out before it."""
    for node in ast.walk(ast.parse(source)):
        text = ""
        for part in node.values if isinstance(node, ast.JoinedStr) else []:
            if isinstance(part, ast.Constant):
                text += str(part.value)
            elif re.search(r"\b(cloudops|prefect) [a-z][^`;:]*[\s'\"=/]$", text):
                yield ast.unparse(node)
            elif "command_line" not in ast.unparse(part):
                text += "{}"


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_a_command_that_is_printed_is_made_by_command_line(module):
    assert [*unquoted(module.read_text())] == []


def test_a_value_in_a_command_is_found():
    assert [*unquoted("f'run: prefect deployment run {name}'")]
    assert [*unquoted("f'run: prefect deployment run run-plan/{name}'")]
    assert not [*unquoted("f'to end it: cloudops server stop{reason}'")]
    assert not [*unquoted("f'`cloudops list` has no {name}'")]
