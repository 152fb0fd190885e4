"""The settings of an engine, from arguments and from `CLOUDOPS_*` environment variables."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, PositiveInt, field_validator, model_validator
from pydantic import ValidationError as WrongTypesError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cloudops_prefect.errors import ValidationError

if TYPE_CHECKING:
    from uuid import UUID

_ENV_PREFIX = "CLOUDOPS_"


class ExecutionConfig(BaseSettings):
    """What holds for every execution of an engine.

    Each field can be set by the environment variable of its name with the prefix `CLOUDOPS_`;
    arguments win over the environment. Times are in milliseconds, sizes in bytes.

    Raises:
        pydantic.ValidationError: A value has the wrong type, is zero or negative, or
            `default_timeout_ms` is above `max_timeout_ms`.
    """

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    default_timeout_ms: PositiveInt = Field(
        default=120_000, description="Timeout of a command that names none"
    )
    max_timeout_ms: PositiveInt = Field(
        default=600_000, description="The longest timeout that a command may ask for"
    )
    stream_output: bool = Field(
        default=True, description="Send output as events and to the Prefect API while it is printed"
    )
    log_dir: Path | None = Field(
        default=None,
        description="Directory of the log files; `cloudops-executions-UID` in the system's "
        "temporary directory if absent",
    )
    max_concurrent_executions: PositiveInt = Field(
        default=10, description="Commands that run at once in one engine, plans included"
    )
    grace_period_ms: PositiveInt = Field(
        default=5_000, description="Time between SIGTERM and SIGKILL"
    )
    max_output_bytes: PositiveInt = Field(
        default=1_048_576, description="How much of each stream's end a result keeps"
    )
    max_api_log_bytes: PositiveInt = Field(
        default=10_485_760, description="How much of an execution's output the Prefect API gets"
    )
    redact_env: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("*SECRET*", "*TOKEN*", "*PASSWORD*", "*_KEY"),
        description="Patterns of names of environment variables, in any case, whose values are "
        "replaced in everything that is printed; a JSON list or separated by commas",
    )

    @field_validator("redact_env", mode="before")
    @classmethod
    def _split_patterns(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            import json

            return json.loads(value)
        return tuple(pattern.strip() for pattern in value.split(",") if pattern.strip())

    @field_validator("log_dir")
    @classmethod
    def _start_here(cls, value: Path | None) -> Path | None:
        """Keep the directory that a relative path starts in, wherever this process goes later."""
        if value is None:
            return None
        try:
            return value.expanduser().absolute()
        except (OSError, RuntimeError) as error:
            raise ValueError(f"no absolute path: {error}") from error

    @model_validator(mode="after")
    def _default_within_maximum(self) -> Self:
        if self.default_timeout_ms > self.max_timeout_ms:
            raise ValueError(
                f"default_timeout_ms ({self.default_timeout_ms}) is above "
                f"max_timeout_ms ({self.max_timeout_ms})"
            )
        return self

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Build the configuration for a program that shows its user one clear message.

        Raises:
            ValidationError: As the class itself, but with one line that names each wrong setting
                and the environment variable it comes from.
        """
        try:
            return cls(**overrides)
        except WrongTypesError as error:
            raise ValidationError("; ".join(_complaints(error, overrides))) from error

    @property
    def resolved_log_dir(self) -> Path:
        """The directory of the log files, absolute, whether it exists or not."""
        if self.log_dir is None:
            return default_log_dir()
        return self.log_dir.expanduser().absolute()

    def log_path(self, execution_id: UUID | str) -> Path:
        """Return where the output of an execution is, without looking."""
        return self.resolved_log_dir / f"{execution_id}.log"


def default_log_dir() -> Path:
    """Return the directory of the log files of a user who sets none.

    Its name has the user's id: everybody shares the temporary directory, and nobody else's logs.
    """
    return Path(tempfile.gettempdir(), f"cloudops-executions-{os.geteuid()}").absolute()


def _complaints(error: WrongTypesError, overrides: dict[str, Any]) -> list[str]:
    complaints: list[str] = []
    for detail in error.errors(include_url=False):
        message = detail["msg"].removeprefix("Value error, ")
        field = ".".join(str(part) for part in detail["loc"][:1])
        if field and field not in overrides:
            field = f"{_ENV_PREFIX}{field.upper()}"
        complaints.append(f"{field}: {message}, not {detail['input']!r}" if field else message)
    return complaints
