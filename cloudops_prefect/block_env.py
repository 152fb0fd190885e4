"""The environment that blocks give to a command, read where the command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from anyio import to_thread
from prefect.blocks.core import Block, UnknownBlockType
from pydantic import ValidationError as WrongTypesError

from cloudops_prefect.api_errors import api_complaint
from cloudops_prefect.errors import ExecutionIOError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable

AWS_CREDENTIALS = "aws-credentials"


class BlockEnvironment(NamedTuple):
    """Variables for a command, and those of their values that nobody may see."""

    env: dict[str, str]
    secrets: tuple[str, ...]


@runtime_checkable
class GivesEnvironment(Protocol):
    """A block that has variables for commands, like `CommandEnvironment`."""

    def environment(self) -> dict[str, str]:
        """Returns all variables, the secret ones in clear."""
        ...

    def secret_values(self) -> dict[str, str]:
        """Returns the secret variables in clear."""
        ...


async def read_environment(names: Iterable[str]) -> BlockEnvironment:
    """Reads blocks like ``command-environment/deploy``; a later one wins over an earlier one.

    Raises:
        ValidationError: if there is no such block, or it can't give an environment.
        ExecutionIOError: if the API does not answer, or does not as it should.
    """
    env: dict[str, str] = {}
    secrets: list[str] = []
    for name in names:
        block = await _load(name)
        if isinstance(block, GivesEnvironment):
            env |= block.environment()
            secrets += block.secret_values().values()
        elif block.get_block_type_slug() == AWS_CREDENTIALS:
            variables, hidden = await to_thread.run_sync(_aws_environment, name, block)
            env |= variables
            secrets += hidden
        else:
            raise ValidationError(f"env_from: block {name!r} gives no environment")
    return BlockEnvironment(env, tuple(secrets))


async def _load(name: str) -> Block:
    try:
        return await Block.aload(name)
    except UnknownBlockType as error:
        raise ValidationError(
            f"env_from: block {name!r} can't be read here: what defines its type is not installed"
        ) from error
    except WrongTypesError as error:
        # Without the values that pydantic quotes, and not as a cause either: they may be secret.
        reasons = "; ".join(
            detail["msg"].removeprefix("Value error, ")
            for detail in error.errors(include_input=False)
        )
    except ValueError as error:
        raise ValidationError(f"env_from: there is no block {name!r}") from error
    except Exception as error:
        if (complaint := api_complaint(error)) is None:
            raise
        raise ExecutionIOError(f"env_from: block {name!r} can't be read: {complaint}") from error
    raise ValidationError(f"env_from: block {name!r} can't be used: {reasons}")


def _aws_environment(name: str, block: Any) -> BlockEnvironment:
    """Asks a block of prefect-aws, which may have to ask AWS for a role's credentials."""
    try:
        found = block.get_boto3_session().get_credentials()
    except Exception as error:
        raise ValidationError(f"env_from: block {name!r}: {error}") from error
    if found is None:
        raise ValidationError(f"env_from: block {name!r} has no credentials")
    credentials = found.get_frozen_credentials()
    client = block.aws_client_parameters
    env = {
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        # Empty where there is none, or the worker's own would go with keys that aren't its own.
        "AWS_SESSION_TOKEN": credentials.token or "",
        "AWS_REGION": block.region_name,
        "AWS_DEFAULT_REGION": block.region_name,
        "AWS_ENDPOINT_URL": client.endpoint_url,
        "AWS_CA_BUNDLE": client.verify_cert_path and str(client.verify_cert_path),
    }
    secrets = (credentials.secret_key, credentials.token)
    return BlockEnvironment(
        {key: value for key, value in env.items() if value is not None},
        tuple(secret for secret in secrets if secret),
    )
