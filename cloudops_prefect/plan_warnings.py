"""Warnings about valid plans: shell syntax in places that no shell reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from cloudops_prefect.env_secrets import is_secret
from cloudops_prefect.nodes import Mapping, TextError
from cloudops_prefect.shell_syntax import (
    Word,
    expansions,
    listed_words,
    path_expansions,
    shell_syntax,
    typed_words,
    value_expansions,
)
from cloudops_prefect.short_forms import FORMS
from cloudops_prefect.yaml_nodes import compose_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloudops_prefect.findings import Findings
    from cloudops_prefect.mistakes import FieldPath
    from cloudops_prefect.shell_syntax import Found
    from cloudops_prefect.short_forms import Fields

_SHOWN_CHARACTERS = 60
_SHOWN_FOUND = 4
_WHOLE_PATH = "write the whole path"
_WHOLE_VALUE = "write the value itself"
_AS_RUN = "write `run: …`, which a shell reads"
_PATHS = {
    "working_dir": f"{_WHOLE_PATH}, or change the directory in a shell: `run: cd … && …`",
    "output_log_path": _WHOLE_PATH,
}
_VALUES = ("interpreter", "profile", "region")
_PROSE = ("description", "name")
# What stands before the words that a file has: the path of a script is no program's name.
_BEFORE = {"exec": (), "aws": ("aws",), "script": ("",)}
_TAGGED = {"exec": ("program",), "aws_cli": ("service", "operation"), "script": ("path",)}


def find_warnings(file: Fields, findings: Findings, secret_names: tuple[str, ...]) -> None:
    """Add warnings about a plan in which there is no mistake.

    Args:
        file: The plan as data.
        findings: Takes the warnings.
        secret_names: Patterns of variables whose values are not looked at.
    """
    _look_at_texts(file, (), findings)
    for index, entry in enumerate(cast("list[Fields]", file["commands"])):
        path = ("commands", index)
        _look_at_texts(entry, path, findings)
        _look_at_paths(entry, path, findings)
        _look_at_env(entry.get("env"), (*path, "env"), findings, secret_names)
        _look_at_command(entry, path, findings)


def _look_at_texts(fields: Fields, path: FieldPath, findings: Findings) -> None:
    for name in _PROSE:
        found = expansions(str(fields.get(name) or ""))
        # A person who names a command after `echo $HOME` expects nothing else.
        _warn([text for text in found if text[:2] in {"${", "$("}], (*path, name), findings)
    for name in _VALUES:
        _warn(expansions(str(fields.get(name) or "")), (*path, name), findings)
    blocks = cast("list[str]", fields.get("env_from") or [])
    for index, block in enumerate(blocks):
        _warn(expansions(block), (*path, "env_from", index), findings)
    metadata = cast("Fields", fields.get("metadata") or {})
    tags = cast("Fields", metadata.get("tags") or {})
    for name, value in tags.items():
        _warn(expansions(str(value)), (*path, "metadata", "tags", name), findings)


def _look_at_paths(entry: Fields, path: FieldPath, findings: Findings) -> None:
    for name, hint in _PATHS.items():
        value = entry.get(name)
        if isinstance(value, str):
            _warn(path_expansions(value), (*path, name), findings, hint)
        elif findings.written((*path, name)) == "~":
            message = "`~` alone is YAML's null, so that the field is absent"
            findings.warn((*path, name), message, f"{_WHOLE_PATH}, or leave the field out")


def _look_at_env(
    env: object, path: FieldPath, findings: Findings, secret_names: tuple[str, ...]
) -> None:
    for name, value in cast("dict[str, str]", env or {}).items():
        if not is_secret(name, secret_names):
            found = value_expansions(name, value)
            _warn(found, (*path, name), findings, _export_hint(name, value))


def _export_hint(name: str, value: str) -> str:
    # In double quotes a shell leaves `~` as it is.
    quoted = re.sub(r"(^|:)~(?=$|[/:])", r"\1$HOME", value)
    is_short = len(value) <= _SHOWN_CHARACTERS and value.isprintable()
    if not is_short or any(sign in value for sign in '"\\`'):
        return "write the whole value, or let a shell set it: `run: export …; …`"
    return f'write the whole value, or let a shell set it: `run: export {name}="{quoted}"; …`'


def _warn(
    found: Sequence[str], path: FieldPath, findings: Findings, hint: str = _WHOLE_VALUE
) -> None:
    if found:
        findings.warn(path, f"nothing expands {_listed(found)} here", hint)


def _look_at_command(entry: Fields, path: FieldPath, findings: Findings) -> None:
    form = next((form for form in FORMS if entry.get(form) is not None), "command")
    value = entry.get(form)
    if form == "run":
        _look_at_end(str(value), (*path, form), findings)
    elif form == "command":
        _look_at_long_form(cast("Fields", value), (*path, form), findings)
    else:
        _look_at_words(value, (*path, form), form, findings)
        if entry.get("args"):
            _look_at_words(entry["args"], (*path, "args"), "script", findings)


def _look_at_end(text: str, path: FieldPath, findings: Findings) -> None:
    if findings.is_cut_short(path, text) and not typed_words(text):
        message = "a ` #` within its quotes ends the text, since YAML begins a comment there"
        findings.warn(path, message, "put the whole text in quotes, or below `run: |`")


def _look_at_long_form(command: Fields, path: FieldPath, findings: Findings) -> None:
    kind = str(command["type"])
    if kind not in _TAGGED:
        return
    _look_at_texts(command, path, findings)
    words = {(*path, name): str(command[name]) for name in _TAGGED[kind]}
    args = cast("list[str]", command.get("args") or [])
    words |= {(*path, "args", index): argument for index, argument in enumerate(args)}
    _look_at_list(words, kind.removesuffix("_cli"), findings)


def _look_at_words(value: object, path: FieldPath, form: str, findings: Findings) -> None:
    if isinstance(value, list):
        items = enumerate(cast("list[str]", value))
        _look_at_list({(*path, index): item for index, item in items}, form, findings)
        return
    text = str(value)
    found = [*shell_syntax(_with_program(form, typed_words(text)), typed=True)]
    if found:
        line = "…" if form == "script" else " ".join([*_BEFORE[form], text])
        findings.warn(path, _message(found), _typed_hint(found, line))


def _look_at_list(words: dict[FieldPath, str], form: str, findings: Findings) -> None:
    paths = [*words]
    for found in shell_syntax(_with_program(form, listed_words([*words.values()])), typed=False):
        path = paths[found.position - len(_BEFORE[form])]
        findings.warn(path, _message([found]), _hints_for(found) or _AS_RUN)


def _with_program(form: str, words: list[Word]) -> list[Word]:
    return [*listed_words(_BEFORE[form]), *words] if words else []


def _message(found: Sequence[Found]) -> str:
    first = found[0]
    if first.kind == "builtin":
        return f"`{first.text}` is a part of a shell, not a program"
    if first.kind == "assignment":
        return f"`{first.text}` is taken for the program, since no shell reads this"
    shown = _listed(one.text for one in found)
    return f"no shell reads this: the program gets {shown} as written"


def _hints_for(found: Found) -> str | None:
    if found.kind == "assignment":
        return "variables go into `env`"
    return "`working_dir` sets the directory" if found.text == "cd" else None


def _typed_hint(found: Sequence[Found], line: str) -> str:
    hint = f"write `run: {_as_yaml(line)}`"
    if found[0].kind != "argument":
        other = _hints_for(found[0])
        return f"{hint}; {other}" if other else hint
    return f"{hint}, or put single quotes around what is meant as it is"


def _as_yaml(line: str) -> str:
    """Return a line as it is written behind `run: `, or dots if it is not sure or too long."""
    if len(line) > _SHOWN_CHARACTERS or not line.isprintable():
        return "…"
    for written in (line, f"'{line}'"):
        try:
            root = compose_yaml(f"run: {written}").root
        except TextError:
            continue
        if isinstance(root, Mapping) and root.entries["run"][1] and _text_in(root) == line:
            return written
    return "…"


def _text_in(root: Mapping) -> str:
    return str(getattr(root.entries["run"][1], "text", ""))


def _listed(found: Iterable[str]) -> str:
    texts = [*dict.fromkeys(found)]
    more = ", …" if len(texts) > _SHOWN_FOUND else ""
    return ", ".join(f"`{text}`" for text in texts[:_SHOWN_FOUND]) + more
