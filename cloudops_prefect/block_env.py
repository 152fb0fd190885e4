"""The environment that blocks give to a command, read where the command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prefect.blocks.core import Block
from pydantic import ValidationError as WrongTypesError

from cloudops_prefect.blocks import CommandEnvironment
from cloudops_prefect.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable


class BlockEnvironment(NamedTuple):
    """Variables for a command, and those of their values that nobody may see."""

    env: dict[str, str]
    secrets: tuple[str, ...]


async def read_environment(names: Iterable[str]) -> BlockEnvironment:
    """Reads blocks like ``command-environment/deploy``; a later one wins over an earlier one.

    Raises:
        ValidationError: if there is no such block, or it can't give an environment.
    """
    env: dict[str, str] = {}
    secrets: list[str] = []
    for name in names:
        block = await _load(name)
        if not isinstance(block, CommandEnvironment):
            raise ValidationError(f"env_from: block {name!r} gives no environment")
        env |= block.environment()
        secrets += block.secret_values().values()
    return BlockEnvironment(env, tuple(secrets))


async def _load(name: str) -> Block:
    try:
        return await Block.aload(name)
    except WrongTypesError as error:
        # Without the values that pydantic quotes, and not as a cause either: they may be secret.
        reasons = "; ".join(
            detail["msg"].removeprefix("Value error, ")
            for detail in error.errors(include_input=False)
        )
    except ValueError as error:
        raise ValidationError(f"env_from: there is no block {name!r}") from error
    raise ValidationError(f"env_from: block {name!r} can't be used: {reasons}")
