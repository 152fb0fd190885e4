"""What all models of the package have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class FrozenModel(BaseModel):
    """A model that never changes and refuses fields that it doesn't know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
