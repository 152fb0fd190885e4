"""Block classes: what a plan names in place of writing it down, like secrets."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator

from cloudops_prefect.redaction import MIN_SECRET_CHARS


class CommandEnvironment(Block):
    """Variables and secrets for the environment of commands, read where the command runs.

    Raises:
        pydantic.ValidationError: A secret is so short, under 4 characters, that replacing it would
            make the output of commands unreadable.
    """

    # An error would quote all secrets for one that is too short.
    model_config = ConfigDict(hide_input_in_errors=True)

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

    @field_validator("secrets")
    @classmethod
    def _refuse_short_secrets(cls, secrets: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in secrets.items():
            if len(secret.get_secret_value().strip()) < MIN_SECRET_CHARS:
                raise ValueError(
                    f"the secret {name} has fewer than {MIN_SECRET_CHARS} characters: replacing it "
                    "would make the output of commands unreadable"
                )
        return secrets

    def environment(self) -> dict[str, str]:
        """Returns all variables, the secret ones in clear."""
        return self.variables | self.secret_values()

    def secret_values(self) -> dict[str, str]:
        """Returns the secret variables in clear."""
        return {name: value.get_secret_value() for name, value in self.secrets.items()}
