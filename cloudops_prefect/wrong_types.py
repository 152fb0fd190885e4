"""Pydantic's errors as mistakes of a file."""

from __future__ import annotations

import re
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel
from pydantic import ValidationError as WrongTypesError

from cloudops_prefect.mistakes import did_you_mean, shown
from cloudops_prefect.models import (
    AwsCliCommand,
    DependencyGraphStrategy,
    ExecCommand,
    ExecutionMetadata,
    ExecutionPlan,
    ExecutionRequest,
    ParallelStrategy,
    ScriptCommand,
    SerialStrategy,
    ShellCommand,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from pydantic_core import ErrorDetails

    from cloudops_prefect.findings import Findings
    from cloudops_prefect.mistakes import FieldPath

_TAGGED: dict[str, type[BaseModel]] = {
    "script": ScriptCommand,
    "exec": ExecCommand,
    "shell": ShellCommand,
    "aws_cli": AwsCliCommand,
    "serial": SerialStrategy,
    "parallel": ParallelStrategy,
    "dependency_graph": DependencyGraphStrategy,
}
_TAGGED_FIELDS = frozenset({"command", "strategy"})
_NESTED_FIELDS = _TAGGED_FIELDS | {"metadata"}
_TEXTS_BY_NAME = frozenset({"env", "tags"})
_MESSAGES = {
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "list_type": "must be a list",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "path_type": "must be a path",
    "string_type": "must be a text",
    "uuid_parsing": "must be a UUID",
    "uuid_type": "must be a UUID",
}
_IN_BRACKETS = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")

ModelT = TypeVar("ModelT", bound=BaseModel)


def checked(
    model: type[ModelT],
    fields: Mapping[str, Any],
    findings: Findings,
    place_of: Callable[[FieldPath], FieldPath],
) -> ModelT | None:
    """Build a model, and add to the findings what keeps it from being built.

    Fields that are null are absent. What is wrong is left out, so that the rest can be looked at;
    None if it can't be left out.

    Args:
        model: The class to build.
        fields: Its fields as plain data.
        findings: Takes the mistakes.
        place_of: The path in the file of a path in the model.
    """
    given = _present_in(fields, model)
    try:
        return model.model_validate(given)
    except WrongTypesError as error:
        details = error.errors(include_url=False)
    for detail in details:
        _add(detail, model, findings, place_of)
    try:
        wrong = [_path_in_model(detail["loc"]) for detail in details]
        return model.model_validate(_without(given, wrong))
    except WrongTypesError:
        return None


def present(fields: Mapping[str, object], known: Collection[str]) -> dict[str, Any]:
    """Leave out known fields that are empty or null, as other tools write what isn't set."""
    return {name: value for name, value in fields.items() if value is not None or name not in known}


def _present_in(fields: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    return {
        name: _present_within(name, cast("dict[str, Any]", value))
        if name in _NESTED_FIELDS and isinstance(value, dict)
        else value
        for name, value in present(fields, model.model_fields).items()
    }


def _present_within(field: str, inner: dict[str, Any]) -> dict[str, Any]:
    given = present(inner, _names_in(field))
    dependencies = given.get("dependencies")
    if field == "strategy" and isinstance(dependencies, dict):
        indices = cast("dict[str, Any]", dependencies)
        given["dependencies"] = present(indices, indices)
    return given


@cache
def _names_in(field: str) -> frozenset[str]:
    """Return the fields that the kinds of a nested object have."""
    models = [_TAGGED[tag] for tag in _tags_of(field)] if field in _TAGGED_FIELDS else []
    return frozenset(chain.from_iterable(one.model_fields for one in models or [ExecutionMetadata]))


def _without(fields: Mapping[str, Any], wrong: Iterable[FieldPath]) -> dict[str, Any]:
    """Leave out what is wrong; a list as a whole, since its items are known by their positions."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        inside = [path[1:] for path in wrong if path[:1] == (name,)]
        if not inside:
            kept[name] = value
        elif () not in inside and isinstance(value, dict):
            kept[name] = _without(cast("dict[str, Any]", value), inside)
    return kept


def path_of(field: str) -> FieldPath:
    """Split what `field_text` has joined."""
    path: list[str | int] = []
    for name, index in _IN_BRACKETS.findall(field):
        path.append(name or (int(index) if index.isdecimal() else index))
    return tuple(path)


def _add(
    detail: ErrorDetails,
    model: type[BaseModel],
    findings: Findings,
    place_of: Callable[[FieldPath], FieldPath],
) -> None:
    location = detail["loc"]
    path = place_of(_path_in_model(location))
    value = detail["input"]
    match detail["type"]:
        case "missing":
            findings.add_missing(path)
        case "union_tag_not_found":
            findings.add_missing((*path, "type"), _tag_hint(str(location[-1])))
        case "union_tag_invalid":
            findings.add(
                place_of((*_path_in_model(location), "type")),
                f"unknown kind {shown(value.get('type'))}",
                _tag_hint(str(location[-1]), detail),
            )
        case "extra_forbidden":
            findings.add_unknown(path, _names_beside(location, model))
        case kind:
            message = _MESSAGES.get(kind) or _reworded(detail["msg"])
            written = _written(value, path, findings)
            hint = findings.quoting_hint(path, value) if kind == "string_type" else None
            hint = hint or _hint(kind, path, value, written)
            findings.add(path, f"{message}, not {shown(written)}", hint)


def _path_in_model(location: tuple[str | int, ...]) -> FieldPath:
    path = [
        part
        for index, part in enumerate(location)
        if not (index == 1 and location[0] in _TAGGED_FIELDS) and part != "[key]"
    ]
    return tuple(path)


def _names_beside(location: tuple[str | int, ...], model: type[BaseModel]) -> Iterable[str]:
    outer = location[0] if location else None
    if outer in _TAGGED_FIELDS and len(location) > 2:
        return _TAGGED[str(location[1])].model_fields
    return ExecutionMetadata.model_fields if outer == "metadata" else model.model_fields


def _tags_of(field: str) -> list[str]:
    model = ExecutionRequest if field == "command" else ExecutionPlan
    commands = model is ExecutionRequest
    return [tag for tag, of in _TAGGED.items() if of.__name__.endswith("Command") == commands]


def _tag_hint(field: str, detail: ErrorDetails | None = None) -> str:
    if detail is None:
        return f"one of {', '.join(_tags_of(field))}"
    return did_you_mean(str(detail["input"].get("type")), _tags_of(field))


def _reworded(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should be", "must be")


def _written(value: object, path: FieldPath, findings: Findings) -> object:
    """Return a value as the file has it: `1.10`, where the data has 1.1."""
    return (findings.written(path) or value) if isinstance(value, (bool, int, float)) else value


def _hint(kind: str, path: FieldPath, value: object, written: object) -> str | None:
    name = path[-1] if path else ""
    if name == "command" and isinstance(value, str):
        return "write `run: …` for a shell command"
    if name == "timeout_ms" and isinstance(value, str):
        return "write `timeout: 30s` for a time with a unit"
    if path[:2] == ("strategy", "dependencies") and isinstance(value, str):
        return "it takes indices, counted from 0; names go into `needs`"
    if value is None and len(path) > 1 and path[-2] in _TEXTS_BY_NAME:
        return 'write "" for an empty text, or leave the name out'
    is_number = isinstance(value, (bool, int, float))
    return _quoting_hint(str(name), value, written) if kind == "string_type" and is_number else None


def _quoting_hint(name: str, value: object, written: object) -> str:
    if name == "name" and isinstance(value, int) and not isinstance(value, bool):
        # In quotes it would be a name, which `needs` without quotes takes for an index.
        return f"begin it with a letter, like `step {written}`: a number is the index of a command"
    return f'put it in quotes: "{written}"'
