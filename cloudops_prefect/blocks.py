"""Block classes: what a plan names in place of writing it down, like secrets."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class CommandEnvironment(Block):
    """Variables and secrets for the environment of commands, read where the command runs."""

    _block_type_name = "Command Environment"
    _block_type_slug = "command-environment"
    _description = "Variables and secrets for the environment of commands."

    variables: dict[str, str] = Field(
        default_factory=dict[str, str], description="Variables that anyone may see"
    )
    secrets: dict[str, SecretStr] = Field(
        default_factory=dict[str, SecretStr],
        description="Variables whose values are replaced in everything that is printed",
    )

    def environment(self) -> dict[str, str]:
        """Returns all variables, the secret ones in clear."""
        return self.variables | self.secret_values()

    def secret_values(self) -> dict[str, str]:
        """Returns the secret variables in clear."""
        return {name: value.get_secret_value() for name, value in self.secrets.items()}
