"""Texts that YAML can't read, or reads as something else: the hint to put them in quotes."""

import pytest

from cloudops_prefect.planfile import check_plan, parse_plan

UNLESS_ALIAS = "put the text in quotes, unless it is meant as an alias"


def mistakes_of(text):
    return [str(mistake) for mistake in check_plan(text, "p.yaml")]


@pytest.mark.parametrize(
    ("entry", "column", "hint"),
    [
        ("run: *.sh", 8, "put the text in quotes, like `run: '*.sh'`"),
        ("run: *all", 8, UNLESS_ALIAS),
        ("run: {{ x }}", 8, "put the text in quotes, like `run: '{{ x }}'`"),
        ("run: {{ x }} && y", 8, "put the text in quotes, like `run: '{{ x }} && y'`"),
        ("run: { a; b; }", 8, "put the text in quotes: YAML reads `{` as the beginning of"),
        ("run: {a,b}", 8, "put the text in quotes: YAML reads `{` as the beginning of"),
        ("run: @foo", 8, "put the text in quotes, like `run: '@foo'`"),
        ("run: `date`", 8, "put the text in quotes, like `run: '`date`'`"),
        ("run: %x", 8, "put the text in quotes, like `run: '%x'`"),
        ('run: "a": b', 11, "put the whole text in quotes, like `run: '\"a\": b'`"),
        ('run: "$X/a" -b', 15, "put the whole text in quotes, like `run: '\"$X/a\" -b'`"),
        ("run: 'it's'", 12, "put the whole text in quotes"),
        ("run: [ -f x ]", 8, "or put the text in quotes"),
        ("run: [ -f x ] && y", 17, "put the text in quotes, like `run: '[ -f x ] && y'`"),
        ('run: [ "$a" = b ] || c', 15, "like `run: '[ \"$a\" = b ] || c'`"),
        ("run: [[ -f x ]] && y", 19, "put the text in quotes, like `run: '[[ -f x ]] && y'`"),
        ("run: echo a: b", 14, "put a text with `: ` in it in quotes, like `run: 'echo a: b'`"),
        ("run: echo a:", 14, "put a text with `: ` in it in quotes, like `run: 'echo a:'`"),
        ("run: !cmd", 8, "put a text that begins with `!` in quotes"),
        ("run: ! grep x", 8, "put a text that begins with `!` in quotes"),
        ("run: ! [ -f x ]", 8, "put a text that begins with `!` in quotes"),
        ("run: & x", 8, "put the text in quotes, like `run: '& x'`"),
        ("run: - x", 8, "put the text in quotes, like `run: '- x'`"),
        ("run: ? x", 8, "put the text in quotes, like `run: '? x'`"),
        ("run: > file", 10, "put the text in quotes, like `run: '> file'`"),
        ("run: | tee", 10, "put the text in quotes, like `run: '| tee'`"),
        ("run: , x", 8, "put the text in quotes, like `run: ', x'`"),
        ('run: "a\\d"', 10, "in double quotes `\\` begins an escape: write `\\\\`, or use"),
        ("exec: [ls, *.txt]", 14, "put the text in quotes, like `'*.txt'`"),
        ("exec: [ls, {{ x }}]", 14, "put the text in quotes, like `'{{ x }}'`"),
        ("exec: [curl, -H, Accept: x]", 20, "put a text with `: ` in it in quotes"),
        ("exec: [grep, [a-z]*, f]", 21, "put a text with `: `, `,`, a bracket or a brace"),
        ("exec: [test, !, -f, x]", 16, "put a text that begins with `!` in quotes"),
        ('exec: [a, "b" c]', 17, "put the whole text in quotes"),
        (
            "{run: a, env: {A: *x}}",
            21,
            UNLESS_ALIAS,
        ),
        ("{run: a, env: {A: !x}}", 21, "put the text in quotes, like `'!x'`"),
        ("{run: a, env: {A: ${{ x }}}}", 22, "put a text with `${{ }}` in quotes"),
        ("{run: a, env: {A: [x]}}", 21, "put the text in quotes: YAML reads `[` as the"),
        ("{run: a, env: {A: x, y}}", 25, "put a text with a comma in it in quotes"),
        ("{run: echo a, b}", 17, "put a text with a comma in it in quotes"),
        ("run:x", 3, "write a space behind `run:`"),
        ("\trun: x", 2, "indent with spaces, not with tabs"),
    ],
)
def test_a_text_that_yaml_reads_as_more_gets_the_hint_to_quote_it(entry, column, hint):
    space = "" if entry.startswith("\t") else " "
    [mistake] = mistakes_of(f"commands:\n-{space}{entry}\n")
    assert mistake.startswith(f"p.yaml:2:{column}: ")
    assert hint in mistake
    if "like `run: " in mistake:
        line = mistake.rpartition("like `")[2].removesuffix("`")
        [request] = parse_plan(f"commands:\n- {line}\n").commands
        assert request.command.command == entry.removeprefix("run: ")


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        (
            "commands:\n- run: 'a\n  name: b\n- run: c\n",
            "5:1",
            "the quotes: the one in line 2, column 8 is never closed",
        ),
        (
            "commands:\n- exec: [a, b\n  name: c\n",
            "3:7",
            "close the `[` in line 2, column 9, or put the text in quotes",
        ),
        ("commands:\n- run:x\n  name: b\n", "3:7", "write a space behind `run:` in the line"),
        ("commands: - run: a\n", "1:11", "begin a list on the next line"),
        ("description: a: b\n", "1:15", "in quotes, like `description: 'a: b'`"),
    ],
)
def test_the_hint_names_the_line_where_it_begins(text, place, hint):
    [mistake] = mistakes_of(text)
    assert mistake.startswith(f"p.yaml:{place}: ")
    assert mistake.endswith(hint) or hint in mistake


def test_json_has_its_quotes():
    [mistake] = check_plan('{"commands": [{"run": {"a": 1}}]}', "p.json")
    assert (mistake.message, mistake.hint) == ("must be a text, not an object", None)
