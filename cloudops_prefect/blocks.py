"""Block classes: what a plan names in place of writing it down, like secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import anyio
from prefect.blocks.abstract import JobBlock, JobRun
from prefect.blocks.core import Block, schema_extra
from prefect.client.orchestration import get_client
from prefect.deployments.flow_runs import arun_deployment
from prefect.exceptions import ObjectNotFound
from pydantic import ConfigDict, Field, HttpUrl, SecretStr, field_validator, model_validator

from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import ValidationError
from cloudops_prefect.models import ExecutionPlan, PlanExecutionResult
from cloudops_prefect.naming import RUN_PLAN, plan_run_name, tags_of
from cloudops_prefect.plan_store import stored_parameters
from cloudops_prefect.redaction import MIN_SECRET_CHARS

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

_DOCUMENTATION = HttpUrl("https://docs.prefect.io/v3/concepts/blocks")
_POLL_SECONDS = 0.5


def _hide_each_secret(schema: dict[str, Any], model: type[Block]) -> None:
    # Of a dictionary Prefect notes the name only, and its API shows the values in it in clear.
    schema_extra(schema, model)
    schema["secret_fields"] = ["secrets.*"]


class CommandEnvironment(Block):
    """Variables and secrets for the environment of commands, read where the command runs.

    Raises:
        pydantic.ValidationError: A secret is so short, under 4 characters, that replacing it would
            make the output of commands unreadable.

    Example:
        ```python
        from cloudops_prefect import CommandEnvironment

        environment = CommandEnvironment.load("BLOCK_NAME")
        ```
    """

    # An error would quote all secrets for one that is too short.
    model_config = ConfigDict(hide_input_in_errors=True, json_schema_extra=_hide_each_secret)

    _block_type_name = "Command Environment"
    _block_type_slug = "command-environment"
    _description = "Variables and secrets for the environment of commands."
    _documentation_url = _DOCUMENTATION

    variables: dict[str, str] = Field(
        default_factory=dict[str, str], description="Variables that anyone may see."
    )
    secrets: dict[str, SecretStr] = Field(
        default_factory=dict[str, SecretStr],
        description="Variables whose values are replaced in everything that is printed.",
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


class ExecutionConfigBlock(Block):
    """Settings of an engine, kept where every engine can read them.

    Example:
        ```python
        from cloudops_prefect import ExecutionConfigBlock, ExecutionEngine

        block = ExecutionConfigBlock.load("BLOCK_NAME")
        engine = ExecutionEngine(block.config())
        ```
    """

    _block_type_name = "Execution Config"
    _block_type_slug = "execution-config"
    _description = "Settings of an engine that runs commands."
    _documentation_url = _DOCUMENTATION

    default_timeout_ms: int | None = Field(
        default=None, description="Timeout in milliseconds of a command that names none."
    )
    max_timeout_ms: int | None = Field(
        default=None, description="The longest timeout in milliseconds that a command may ask for."
    )
    stream_output: bool | None = Field(
        default=None, description="Send output as events and to the API while it is printed."
    )
    log_dir: str | None = Field(default=None, description="Directory of the log files.")
    max_concurrent_executions: int | None = Field(
        default=None, description="Commands that run at once in one engine."
    )
    grace_period_ms: int | None = Field(
        default=None, description="Milliseconds between SIGTERM and SIGKILL."
    )
    max_output_bytes: int | None = Field(
        default=None, description="How much of each stream's end a result keeps."
    )
    max_api_log_bytes: int | None = Field(
        default=None, description="How much of an execution's output the API gets."
    )
    redact_env: list[str] | None = Field(
        default=None, description="Patterns of names of variables whose values nobody may see."
    )

    @model_validator(mode="after")
    def _makes_a_config(self) -> Self:
        self.config()
        return self

    def config(self) -> ExecutionConfig:
        """Returns the settings; the environment, then the defaults, fill in what is not set.

        Raises:
            pydantic.ValidationError: As `ExecutionConfig`.
        """
        settings = {name: getattr(self, name) for name in ExecutionConfig.model_fields}
        return ExecutionConfig(**{k: v for k, v in settings.items() if v is not None})


class ExecutionPlanBlock(JobBlock[PlanExecutionResult]):
    """A plan that is kept in Prefect, and run by whoever triggers it.

    Example:
        ```python
        from cloudops_prefect import ExecutionPlanBlock

        plan = ExecutionPlanBlock.load("BLOCK_NAME")
        run = await plan.trigger()
        await run.wait_for_completion()
        result = await run.fetch_result()
        ```
    """

    _block_type_name = "Execution Plan"
    _block_type_slug = "execution-plan"
    _description = "A plan of commands that can be triggered."
    _documentation_url = _DOCUMENTATION

    plan: ExecutionPlan = Field(default=..., description="The commands, and their order.")
    deployment: str = Field(
        default=f"{RUN_PLAN}/{RUN_PLAN}",
        description="The deployment of the flow run-plan that runs it.",
    )

    async def trigger(self) -> PlanJobRun:
        """Starts a run of the deployment, and returns at once.

        Raises:
            ValidationError: The plan is refused, or there is no such deployment.
        """
        self.plan.validate(ExecutionConfig.load())
        try:
            async with get_client() as client:
                parameters = await stored_parameters(client, self.plan)
            flow_run = await arun_deployment(
                self.deployment,
                parameters=parameters,
                flow_run_name=plan_run_name(self.plan),
                tags=tags_of(self.plan.id, self.plan.metadata),
                timeout=0,
            )
        except ObjectNotFound as error:
            raise ValidationError(f"there is no deployment {self.deployment!r}") from error
        return PlanJobRun(flow_run.id)


class PlanJobRun(JobRun[PlanExecutionResult]):
    """A run of a stored plan.

    Attributes:
        execution_id: The id of its flow run.
    """

    def __init__(self, execution_id: UUID) -> None:
        self.execution_id = execution_id

    async def wait_for_completion(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (Prefect's own blocks return nothing)
        """Returns when the run has ended, however it ended."""
        async with get_client() as client:
            while not await self._has_ended(client):
                await anyio.sleep(_POLL_SECONDS)

    async def fetch_result(self) -> PlanExecutionResult:
        """Returns how the plan ended.

        Raises:
            ExecutionNotCompletedError: It has not ended.
        """
        from cloudops_prefect.history import find, read_plan_result

        async with get_client() as client:
            return await read_plan_result(client, await find(client, self.execution_id))

    async def _has_ended(self, client: PrefectClient) -> bool:
        state = (await client.read_flow_run(self.execution_id)).state
        return state is not None and state.is_final()
