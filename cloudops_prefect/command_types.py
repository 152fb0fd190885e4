"""The four kinds of command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from cloudops_prefect import shapes
from cloudops_prefect.errors import MissingFieldError
from cloudops_prefect.frozen import FrozenModel, as_any_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudops_prefect.errors import ValidationError


class ScriptCommand(FrozenModel):
    """A script file; a shebang, else its extension decides what interprets it, unless given."""

    type: Literal["script"] = "script"
    path: Path = Field(description="The script; a relative path starts where the command runs")
    args: list[str] = Field(default_factory=list[str], description="What the script is given")
    interpreter: str | None = Field(
        default=None, description="Program that runs the script, in place of what its shebang says"
    )

    def validate(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (pydantic's is deprecated)
        """Check the shape of the command; whether the script exists is checked where it runs.

        Raises:
            MissingFieldError: `path` is empty.
            InvalidCommandError: A value can't be part of a command.
        """
        for error in self.shape_errors():
            raise error

    def shape_errors(self) -> Iterator[ValidationError]:
        """Yield everything for which `validate` would refuse the command."""
        if self.path == Path():
            yield MissingFieldError("path")
        yield from shapes.path_errors("path", self.path)
        yield from shapes.args_errors(self.args)
        yield from shapes.optional_errors("interpreter", self.interpreter)

    @property
    def display_line(self) -> str:
        """The script's name without its directory, and its arguments as a shell needs them."""
        return " ".join([self.path.name or str(self.path), *map(shlex.quote, self.args)])


class ExecCommand(FrozenModel):
    """A program with arguments, started without a shell."""

    type: Literal["exec"] = "exec"
    program: str = Field(description="A name that is looked up in PATH, or a path")
    args: list[str] = Field(default_factory=list[str])

    def validate(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (pydantic's is deprecated)
        """Check the shape of the command; whether the program exists is checked where it runs.

        Raises:
            MissingFieldError: `program` is empty.
            InvalidCommandError: A value can't be part of a command.
        """
        for error in self.shape_errors():
            raise error

    def shape_errors(self) -> Iterator[ValidationError]:
        """Yield everything for which `validate` would refuse the command."""
        yield from shapes.required_errors("program", self.program)
        if self.program.startswith("~/"):
            yield from shapes.path_errors("program", Path(self.program))
        yield from shapes.args_errors(self.args)

    @property
    def display_line(self) -> str:
        """The program and its arguments as a shell would need them to be written."""
        return shlex.join([self.program, *self.args])


class ShellCommand(FrozenModel):
    """A string for a shell: `SHELL -c COMMAND`."""

    type: Literal["shell"] = "shell"
    command: str = Field(description="What the shell runs; may have several lines")
    shell: str = Field(default="bash", description="Name or path of the shell")

    def validate(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (pydantic's is deprecated)
        """Check the shape of the command; whether the shell exists is checked where it runs.

        Raises:
            MissingFieldError: `command` is empty.
            InvalidCommandError: `shell` is no shell, or a value can't be part of a command.
        """
        for error in self.shape_errors():
            raise error

    def shape_errors(self) -> Iterator[ValidationError]:
        """Yield everything for which `validate` would refuse the command."""
        yield from shapes.required_errors("command", self.command)
        yield from shapes.shell_errors(self.shell)
        yield from shapes.shell_text_errors(self.command, self.shell)

    @property
    def display_line(self) -> str:
        """The first line that isn't blank."""
        return self.command.strip().partition("\n")[0]


class AwsCliCommand(FrozenModel):
    """A call of the AWS CLI: `aws SERVICE OPERATION ARGS…`."""

    type: Literal["aws_cli"] = "aws_cli"
    service: str = Field(description="Such as ec2")
    operation: str = Field(description="Such as describe-instances")
    args: list[str] = Field(default_factory=list[str])
    profile: str | None = Field(default=None, description="A profile of ~/.aws/config")
    region: str | None = Field(default=None, description="Such as eu-central-1")

    def validate(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (pydantic's is deprecated)
        """Check the shape of the command.

        Raises:
            MissingFieldError: `service` or `operation` is empty.
            InvalidCommandError: An option stands where the service or the operation belongs, or a
                value can't be part of a command.
        """
        for error in self.shape_errors():
            raise error

    def shape_errors(self) -> Iterator[ValidationError]:
        """Yield everything for which `validate` would refuse the command."""
        yield from shapes.word_errors("service", self.service)
        yield from shapes.word_errors("operation", self.operation)
        yield from shapes.args_errors(self.args, "write it to a file and pass `file://PATH`")
        yield from shapes.optional_errors("profile", self.profile)
        yield from shapes.optional_errors("region", self.region)

    @property
    def display_line(self) -> str:
        """The call as it is typed."""
        return shlex.join(["aws", self.service, self.operation, *self.args])


def _as_first_any_of(schema: dict[str, Any]) -> None:
    as_any_of(schema)
    # The Prefect UI orders a form by it; where there is none it is 0.
    schema["position"] = -1


# An empty form in the Prefect UI asks for the first one.
Command = Annotated[
    ShellCommand | ScriptCommand | ExecCommand | AwsCliCommand,
    Field(discriminator="type", json_schema_extra=_as_first_any_of),
]
