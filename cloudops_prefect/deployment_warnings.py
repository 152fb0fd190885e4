"""Warnings about a plan that a worker would run in another way than its author expects."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.models import AwsCliCommand, ExecCommand, ScriptCommand, ShellCommand
from cloudops_prefect.naming import api_credentials
from cloudops_prefect.run_origin import current_directory
from cloudops_prefect.shown import names_of, redactor_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect.client.schemas.objects import WorkPool

    from cloudops_prefect.models import ExecutionPlan, ExecutionRequest

_MAX_LISTED = 20
_MAXIMUM_VARIABLE = "CLOUDOPS_MAX_TIMEOUT_MS"
_DEFAULT_MAXIMUM_MS: int = ExecutionConfig.model_fields["max_timeout_ms"].default
# Comments and `set -e` may precede it. What `cd "$(dirname "$0")"` means to `bash -c` depends on
# the directory again, so that no command substitution counts.
_ENTERS_A_DIRECTORY = re.compile(
    r"(?:[ \t]*(?:#[^\n]*|set[ \t][^;&|\n]*)?(?:\n|;|&&))*"
    r"[ \t]*cd[ \t]+(?:-[LP][ \t]+|--[ \t]+)?[\"']?(?:/|~|\$[\w{])"
)
_PLAIN_YAML = re.compile(r"[\w./-]+")
_INDEPENDENT_AWS_WORD = re.compile(r"-|/|s3://|arn:|https?://|fileb?:///")


def find_warnings(plan: ExecutionPlan, pool: WorkPool, config: ExecutionConfig) -> list[str]:
    """Return what a person should know before a worker of a pool runs a plan.

    Args:
        plan: A valid plan.
        pool: The work pool of its deployment.
        config: Its `redact_env` names which variables are secret.
    """
    return [*_directory_warning(plan, pool, config), *_timeout_warning(plan, pool, config)]


def _directory_warning(
    plan: ExecutionPlan, pool: WorkPool, config: ExecutionConfig
) -> Iterator[str]:
    if not _starts_in_a_temporary_directory(pool):
        return
    if lines := _listed(plan, config, [_relative_uses(request) for request in plan.commands]):
        yield (
            "a worker starts each run in a new temporary directory, in which it has no files, and "
            "which is removed afterwards. These commands may depend on their "
            f"directory:{lines}\n"
            "Write absolute paths of the worker's machine, in particular an absolute `working_dir` "
            f"in each of these commands, like `working_dir: {_example_directory()}`; "
            "`working_dir: /` says that a command needs no directory. A `working_dir` of the work "
            "pool is an alternative."
        )


def _example_directory() -> str:
    """Return the directory of this process as a YAML value; another if it has none to show."""
    directory = str(current_directory() or "")
    if not directory.isprintable() or not directory:
        return "/srv/shop"
    return directory if _PLAIN_YAML.fullmatch(directory) else json.dumps(directory)


def _starts_in_a_temporary_directory(pool: WorkPool) -> bool:
    # Runs in containers start in the directory of their image.
    if pool.type != "process":
        return False
    default, fixed = _job_setting(pool, "working_dir")
    return not (default or fixed)


def _job_setting(pool: WorkPool, name: str) -> tuple[Any, Any]:
    """Return the default of a job variable, and the value if the pool fixes one; else None."""
    template: dict[str, Any] = pool.base_job_template
    variable = template.get("variables", {}).get("properties", {}).get(name, {})
    fixed = template.get("job_configuration", {}).get(name)
    is_placeholder = isinstance(fixed, str) and "{{" in fixed
    return variable.get("default"), None if is_placeholder else fixed


def _relative_uses(request: ExecutionRequest) -> list[str]:
    """Return what of a request may depend on the directory in which a worker starts it."""
    uses: list[str] = []
    if (use := _directory_use(request)) is not None:
        uses.append(use)
    copy = request.output_log_path
    if copy is not None and not copy.is_absolute():
        uses.append(f"output_log_path {copy}")
    return uses


def _directory_use(request: ExecutionRequest) -> str | None:
    directory, command = request.working_dir, request.command
    if directory is not None:
        # All other relative paths begin there.
        return None if directory.is_absolute() else f"working_dir {directory}"
    match command:
        case ScriptCommand() if not command.path.is_absolute():
            return f"script {command.path}"
        # A program without a slash is looked up in PATH.
        case ExecCommand() if "/" in command.program and not command.program.startswith("/"):
            return f"exec {command.program}"
        case ShellCommand() if _ENTERS_A_DIRECTORY.match(command.command):
            return None
        case AwsCliCommand() if all(map(_is_independent, command.args)):
            return None
        case _:
            return "no working_dir"


def _is_independent(aws_argument: str) -> bool:
    """Return whether an argument can't name a local file by a relative path.

    The AWS CLI reads and writes those files only that its arguments name.
    """
    option, equals, value = aws_argument.partition("=")
    word = value if equals and option.startswith("-") else aws_argument
    return _INDEPENDENT_AWS_WORD.match(word) is not None


def _timeout_warning(plan: ExecutionPlan, pool: WorkPool, config: ExecutionConfig) -> Iterator[str]:
    of_pool = _pool_maximum_ms(pool)
    maximum_ms = of_pool or _DEFAULT_MAXIMUM_MS
    too_long = [
        [f"timeout_ms {timeout_ms}"] if (timeout_ms := request.timeout_ms or 0) > maximum_ms else []
        for request in plan.commands
    ]
    if not (lines := _listed(plan, config, too_long)):
        return
    longest_ms = max(request.timeout_ms or 0 for request in plan.commands)
    if of_pool:
        yield (
            f"the workers refuse the plan, since the work pool sets {_MAXIMUM_VARIABLE}={of_pool} "
            f"and these timeouts are above it:{lines}\n"
            f"Set {_MAXIMUM_VARIABLE}={longest_ms} in the `env` of the work pool."
        )
    else:
        yield (
            f"a worker refuses the plan unless its {_MAXIMUM_VARIABLE} allows these timeouts; the "
            f"default is {_DEFAULT_MAXIMUM_MS}:{lines}\n"
            f"Set {_MAXIMUM_VARIABLE}={longest_ms} in the worker's environment or in the `env` of "
            "the work pool."
        )


def _pool_maximum_ms(pool: WorkPool) -> int | None:
    """Return the longest timeout that the environment of a pool's runs allows, if it says so."""
    default, fixed = (_maximum_in(environment) for environment in _job_setting(pool, "env"))
    return fixed or default


def _maximum_in(environment: object) -> int | None:
    if not isinstance(environment, dict):
        return None
    value = str(cast("dict[str, object]", environment).get(_MAXIMUM_VARIABLE, ""))
    return int(value) if value.isdecimal() else None


def _listed(plan: ExecutionPlan, config: ExecutionConfig, uses: Sequence[Sequence[str]]) -> str:
    """Return a line for each use that a command makes of something, without secrets."""
    secrets = api_credentials()
    names = names_of(plan, config, secrets)
    lines = [
        f"\n  {name}: {redactor_for(config, [request], secrets).text(use)}"
        for name, request, of_command in zip(names, plan.commands, uses, strict=True)
        for use in of_command
    ]
    if len(lines) > _MAX_LISTED:
        lines[_MAX_LISTED:] = [f"\n  and {len(lines) - _MAX_LISTED} more"]
    return "".join(lines)
