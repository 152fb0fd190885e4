"""What all models of the package have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]


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
