"""What all models of the package have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from cloudops_prefect.unicode_text import path_text, valid_text

Count = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, AfterValidator(valid_text)]
"""What is only shown: bytes of a file name that are not UTF-8 are replaced."""
ShownPath = Annotated[Path, PlainSerializer(path_text, return_type=str, when_used="json")]
"""The true path in Python, and text in JSON, which can't hold every path."""


def _require_tag(schema: dict[str, Any]) -> None:
    """Require `type`: it has a default for Python only, JSON without it could mean any type."""
    required: list[str] = schema.get("required", [])
    if "const" in schema.get("properties", {}).get("type", {}) and "type" not in required:
        schema["required"] = ["type", *required]


class FrozenModel(BaseModel):
    """A model that never changes and refuses fields that it doesn't know."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_require_tag)


def as_any_of(schema: dict[str, Any]) -> None:
    """Write a tagged union as `anyOf`, which the Prefect UI makes a form of, unlike `oneOf`."""
    schema["anyOf"] = schema.pop("oneOf")
