"""Commands as people write them in a file, turned into the fields of an `ExecutionRequest`."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from pydantic import TypeAdapter
from pydantic import ValidationError as WrongTypesError

from cloudops_prefect.durations import Duration
from cloudops_prefect.mistakes import nearest, shown
from cloudops_prefect.models import ExecutionRequest
from cloudops_prefect.wrong_types import present

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudops_prefect.findings import Findings
    from cloudops_prefect.mistakes import FieldPath

Fields = dict[str, object]

REQUEST_FIELDS = tuple(ExecutionRequest.model_fields)
FORMS = ("run", "script", "exec", "aws")
REFINEMENTS = {
    "shell": "run",
    "args": "script",
    "interpreter": "script",
    "profile": "aws",
    "region": "aws",
}
KNOWN_FIELDS = (*FORMS, *REQUEST_FIELDS, *REFINEMENTS, "timeout", "needs")

_NAMES_ELSEWHERE = {
    "after": "needs",
    "argv": "exec",
    "bash": "run",
    "cmd": "run",
    "cwd": "working_dir",
    "dependencies": "needs",
    "depends_on": "needs",
    "dir": "working_dir",
    "environment": "env",
    "program": "exec",
    "pwd": "working_dir",
    "requires": "needs",
    "sh": "run",
    "shell_command": "run",
    "title": "name",
    "variables": "env",
    "vars": "env",
    "workdir": "working_dir",
}
_HINTS = {
    "`cloudops resume` runs again what has not completed": (
        "attempts max_attempts max_retries retries retry retry_count"
    ),
    "a plan has `metadata: {tags: {…}}`": "labels tag tags",
    "with `strategy: {type: serial, stop_on_error: false}` all commands run": (
        "allow_failure continue_on_error ignore_errors stop_on_error"
    ),
    "write `run: if …; then …; fi`": "condition if only_if unless when",
    "they come from blocks: `env_from: [command-environment/…]`": "secret secrets",
    "`cloudops deploy --cron` makes one": "cron schedule schedules",
}
_HINT_OF = {name: hint for hint, names in _HINTS.items() for name in names.split()}
_DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


@dataclass(slots=True)
class Expansion:
    """The fields of an `ExecutionRequest`, and where in the file those stand that moved."""

    path: FieldPath
    fields: Fields
    needs: object = None
    has_needs: bool = False
    _origins: dict[FieldPath, str] = field(default_factory=dict["FieldPath", str])

    def moved(self, *fields: str, to: str) -> None:
        """Note that a field of the request stands elsewhere in the file."""
        self._origins[fields] = to

    def place_of(self, fields: FieldPath) -> FieldPath:
        """Return the path in the file of a field of the request."""
        for length in range(len(fields), 0, -1):
            origin = self._origins.get(fields[:length])
            if origin is not None:
                return *self.path, origin
        return *self.path, *fields


def expand(entry: Fields, path: FieldPath, findings: Findings) -> Expansion:
    """Turn one entry of a file, in the short or the long form, into the fields of a request."""
    entry = _present(entry)
    fields = {name: entry[name] for name in REQUEST_FIELDS if name in entry}
    expansion = Expansion(path, fields, entry.get("needs"), "needs" in entry)
    unknown = [name for name in entry if name not in KNOWN_FIELDS]
    for name in unknown:
        _add_unknown(name, entry, path, findings)
    forms = [name for name in (*FORMS, "command") if name in entry]
    if len(forms) > 1:
        findings.add(
            (*path, forms[1]), f"`{forms[0]}` is there too; keep one of them", of_name=True
        )
    elif forms and forms[0] != "command":
        _expand_form(forms[0], entry, expansion, findings)
    elif not forms and "shell" in entry:
        hint = "write `run: …`; `shell` only tells which shell runs it"
        findings.add((*path, "shell"), "says nothing of what to run", hint, of_name=True)
    elif not forms and not any(_meant(name) in {*FORMS, "command", "shell"} for name in unknown):
        findings.add_missing((*path, "command"), "say what to run, like `run: make test`")
    _check_refinements(entry, forms, path, findings)
    if "timeout" in entry:
        _expand_timeout(entry, expansion, findings)
    return expansion


def _present(entry: Fields) -> Fields:
    """Leave out what is null, but keep one form that is null if no other says what to run."""
    given = present(entry, KNOWN_FIELDS)
    if not any(form in given for form in (*FORMS, "command")):
        given |= dict.fromkeys([form for form in FORMS if form in entry][:1])
    return given


def plain(name: str) -> str:
    """Return a field's name as it would be written here."""
    return name.lower().replace("-", "_")


def hint_of(name: str) -> str | None:
    """Return what there is in place of a field that only other tools have."""
    return _HINT_OF.get(plain(name))


def _add_unknown(name: str, entry: Fields, path: FieldPath, findings: Findings) -> None:
    hint = hint_of(name)
    if name == "type":
        hint = "it goes inside: `command: {type: …}`; shorter is `run: …`"
    if hint is not None:
        findings.add((*path, name), f"unknown field `{name}`", hint, of_name=True)
        return
    meant = _meant(name)
    if meant == "shell" and not any(form in entry for form in (*FORMS, "command")):
        meant = "run"
    if meant:
        hint = f"did you mean `{meant}`?"
        findings.add((*path, name), f"unknown field `{name}`", hint, of_name=True)
    else:
        findings.add_unknown((*path, name), KNOWN_FIELDS)


def _meant(name: str) -> str | None:
    if hint_of(name) is not None:
        return None
    meant = plain(name)
    if meant not in _NAMES_ELSEWHERE:
        # Names from elsewhere are misspelt too: `enviroment` is not meant to be `env_from`.
        meant = nearest(meant, (*KNOWN_FIELDS, *_NAMES_ELSEWHERE)) or meant
    return _NAMES_ELSEWHERE.get(meant, meant if meant in KNOWN_FIELDS else None)


def _expand_form(form: str, entry: Fields, expansion: Expansion, findings: Findings) -> None:
    value, path = entry[form], (*expansion.path, form)
    expansion.moved("command", to=form)
    refinements = {
        name: entry[name] for name, of in REFINEMENTS.items() if of == form and name in entry
    }
    for name in refinements:
        expansion.moved("command", name, to=name)
    command = _FORM_READERS[form](value, path, findings)
    if "args" in refinements:
        more = _read_args(refinements.pop("args"), (*expansion.path, "args"), findings)
        command = None if command is None or more is None else _with_args(command, more)
    if command is not None:
        expansion.fields["command"] = {**command, **refinements}


def _with_args(command: Fields, more: list[str]) -> Fields:
    return {**command, "args": [*cast("list[str]", command["args"]), *more]}


def _read_run(value: object, path: FieldPath, findings: Findings) -> Fields | None:
    hint = "write `exec: …` for a list, or put the text in quotes"
    text = _text(value, path, findings, of_list=hint)
    return None if text is None else {"type": "shell", "command": text}


def _read_script(value: object, path: FieldPath, findings: Findings) -> Fields | None:
    if isinstance(value, str) and "\n" in value.strip():
        hint = "lines of a shell go below `run: |`"
        findings.add(path, "must be a script file and its arguments, not several lines", hint)
        return None
    words = _words(value, path, findings)
    return None if words is None else {"type": "script", "path": words[0], "args": words[1:]}


def _read_args(value: object, path: FieldPath, findings: Findings) -> list[str] | None:
    is_blank = isinstance(value, str) and not value.strip()
    return [] if is_blank else _split_or_listed(value, path, findings)


def _read_exec(value: object, path: FieldPath, findings: Findings) -> Fields | None:
    words = _words(value, path, findings)
    return None if words is None else {"type": "exec", "program": words[0], "args": words[1:]}


def _read_aws(value: object, path: FieldPath, findings: Findings) -> Fields | None:
    words = _words(value, path, findings)
    if words is None:
        return None
    if words[0] == "aws":
        findings.add(path, "`aws` itself is not part of it", "begin with the service, like `s3 ls`")
        return None
    if len(words) == 1:
        findings.add_missing(path, f"`{words[0]}` needs an operation too, like `s3 ls`")
        return None
    return {"type": "aws_cli", "service": words[0], "operation": words[1], "args": words[2:]}


_FORM_READERS: dict[str, Callable[[object, FieldPath, Findings], Fields | None]] = {
    "run": _read_run,
    "script": _read_script,
    "exec": _read_exec,
    "aws": _read_aws,
}


def _text(
    value: object, path: FieldPath, findings: Findings, of_list: str | None = None
) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        findings.add_missing(path)
    elif not isinstance(value, str):
        message = f"must be a text, not {shown(value)}"
        hint = findings.quoting_hint(path, value)
        findings.add(path, message, of_list or hint if isinstance(value, list) else hint)
    else:
        return value
    return None


def _words(value: object, path: FieldPath, findings: Findings) -> list[str] | None:
    words = _split_or_listed(value, path, findings)
    if words is not None and not (words and words[0]):
        findings.add_missing(path)
        return None
    return words


def _split_or_listed(value: object, path: FieldPath, findings: Findings) -> list[str] | None:
    """Return the words of a list, or those into which a shell splits a text."""
    if isinstance(value, list):
        return _listed_words(cast("list[object]", value), path, findings)
    text = _text(value, path, findings)
    return None if text is None else _split_words(text, path, findings)


def _listed_words(items: list[object], path: FieldPath, findings: Findings) -> list[str] | None:
    for index, item in enumerate(items):
        if not isinstance(item, str):
            hint = findings.quoting_hint((*path, index), item)
            findings.add((*path, index), f"must be a text, not {shown(item)}", hint)
    words = [item for item in items if isinstance(item, str)]
    return words if len(words) == len(items) else None


def _split_words(text: str, path: FieldPath, findings: Findings) -> list[str] | None:
    try:
        return shlex.split(text)
    except ValueError as error:
        is_cut = findings.is_cut_short(path, text)
        hint = "YAML begins a comment at ` #`; put the whole text in quotes" if is_cut else None
        message = f"can't be split into words: {str(error).lower()} in {shown(text)}"
        findings.add(path, message, hint)
        return None


def _check_refinements(
    entry: Fields, forms: list[str], path: FieldPath, findings: Findings
) -> None:
    for name, form in REFINEMENTS.items():
        if name in entry and forms and form not in forms:
            message = f"goes with `{form}`, not with `{forms[0]}`"
            hint = f"write them in `{forms[0]}`" if name == "args" else None
            findings.add((*path, name), message, hint, of_name=True)


def _expand_timeout(entry: Fields, expansion: Expansion, findings: Findings) -> None:
    path = (*expansion.path, "timeout")
    if "timeout_ms" in entry:
        findings.add(path, "`timeout_ms` is there too; keep one of them", of_name=True)
        return
    expansion.moved("timeout_ms", to="timeout")
    try:
        duration = _DURATION.validate_python(entry["timeout"])
    except WrongTypesError:
        findings.add(
            path, f"must be a duration, not {shown(entry['timeout'])}", "like 30s or 1h 30m"
        )
        return
    expansion.fields["timeout_ms"] = math.ceil(duration / timedelta(milliseconds=1))
