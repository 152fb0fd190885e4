"""JSON Schema of plan and request files, for editors."""

from __future__ import annotations

from typing import Any, Literal

from cloudops_prefect.models import ExecutionPlan, ExecutionRequest

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_Schema = dict[str, Any]

_NULL: _Schema = {"type": "null"}
# Here a file may hold numbers and truth values, which are taken as the text that they are.
_LITERAL: _Schema = {"type": ["string", "number", "boolean"]}
_WORDS: _Schema = {"type": "array", "items": _LITERAL, "minItems": 1}
_NAME_OR_INDEX: _Schema = {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]}
_LITERAL_ITEMS = {"env": "additionalProperties", "tags": "additionalProperties", "args": "items"}

_SHORT_FIELDS: dict[str, _Schema] = {
    "run": {**_LITERAL, "description": "A shell command, like `make test`"},
    "shell": {"type": "string", "description": "The shell of `run`; bash if absent"},
    "script": {
        "anyOf": [_WORDS, {"type": "string"}],
        "description": "A script file and its arguments, as a list or as they are typed",
    },
    "args": {
        "anyOf": [{"type": "array", "items": _LITERAL}, _LITERAL],
        "description": "More arguments of the `script`, as a list or as they are typed",
    },
    "interpreter": {"type": "string", "description": "What runs the `script`"},
    "exec": {
        "anyOf": [_WORDS, {"type": "string"}],
        "description": "A program and its arguments, as a list or as they are typed",
    },
    "aws": {
        "anyOf": [_WORDS, {"type": "string"}],
        "description": "An AWS CLI call without its `aws`, like `ec2 describe-instances`",
    },
    "profile": {"type": "string", "description": "The AWS profile of `aws`"},
    "region": {"type": "string", "description": "The AWS region of `aws`"},
    "timeout": {
        "type": ["string", "number", "object"],
        "description": "A duration, like 30s, 1h 30m, PT90S or a number of seconds",
    },
    "needs": {
        "anyOf": [{"type": "array", "items": _NAME_OR_INDEX}, *_NAME_OR_INDEX["anyOf"]],
        "description": "Names or indices of the commands that must have completed before",
    },
}
_FORMS = ("run", "script", "exec", "aws", "command")


def json_schema(kind: Literal["plan", "request"] = "plan") -> _Schema:
    """Return the JSON Schema (draft 2020-12) of a plan file or a request file.

    It describes the contract's form and the short forms.
    """
    model = ExecutionPlan if kind == "plan" else ExecutionRequest
    schema = model.model_json_schema()
    definitions: dict[str, _Schema] = schema["$defs"]
    for definition in (schema, *definitions.values()):
        _allow_literals(definition.get("properties", {}))
    if kind == "plan":
        _shorten_request(definitions["ExecutionRequest"], in_plan=True)
        _shorten_strategy(schema["properties"])
        schema["patternProperties"] = {"^x-": {"description": "A place for YAML anchors"}}
    else:
        _shorten_request(schema, in_plan=False)
    for definition in (schema, *definitions.values()):
        _allow_null(definition.get("properties", {}), definition.get("required", []))
    schema["properties"]["$schema"] = {"type": "string"}
    return {"$schema": _DRAFT, **schema}


def _shorten_request(schema: _Schema, *, in_plan: bool) -> None:
    short = {name: field for name, field in _SHORT_FIELDS.items() if in_plan or name != "needs"}
    schema["properties"] |= short
    schema["required"] = [name for name in schema["required"] if name != "command"]
    schema["oneOf"] = [
        {"required": [form], "properties": {form: {"not": {"type": "null"}}}} for form in _FORMS
    ]
    if not schema["required"]:
        del schema["required"]


def _shorten_strategy(properties: dict[str, _Schema]) -> None:
    strategy = properties["strategy"]
    kinds = list(strategy["discriminator"]["mapping"])
    long_form = {name: strategy.pop(name) for name in ("discriminator", "anyOf")}
    strategy["anyOf"] = [{"enum": kinds}, long_form]


def _allow_literals(properties: dict[str, _Schema]) -> None:
    for name, place in _LITERAL_ITEMS.items():
        if name in properties:
            properties[name][place] = _LITERAL


def _allow_null(properties: dict[str, _Schema], required: list[str]) -> None:
    """Let optional fields be null, which is as if they were absent."""
    for name, field in properties.items():
        if name not in required:
            properties[name] = _or_null(field)
    if "dependencies" in properties:
        dependencies = properties["dependencies"]
        dependencies["additionalProperties"] = _or_null(dependencies["additionalProperties"])


def _or_null(field: _Schema) -> _Schema:
    if "anyOf" in field:
        others = [one for one in field["anyOf"] if one != _NULL]
        return {**field, "anyOf": [*others, _NULL]}
    if "type" in field:
        written: str | list[str] = field["type"]
        types = [written] if isinstance(written, str) else written
        return {**field, "type": [*types, "null"]}
    described = {name: field[name] for name in field if name != "$ref"}
    return {**described, "anyOf": [{"$ref": field["$ref"]}, _NULL]}
