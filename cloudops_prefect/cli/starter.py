"""The plan that `cloudops init` writes."""

from pathlib import Path

from pydantic_core import to_json

from cloudops_prefect.errors import ValidationError
from cloudops_prefect.planfile import json_schema
from cloudops_prefect.shell_words import command_line

SCHEMA = "cloudops.schema.json"
"""The file beside a plan that its first line names, so that editors know what may stand in it."""

STARTER = """\
# yaml-language-server: $schema={schema}
# A plan: commands, and what waits for what.
#
{commands}
#
# The first line makes editors complete what you type; to renew the schema after an upgrade:
# {renew}

description: My first plan

# Without `needs` anywhere, the commands run one after the other. To run all at once:
# strategy: {{type: parallel, max_concurrency: 4}}

# To find its runs again: cloudops list --tag team=platform
metadata:
  tags:
    team: platform

commands:
  # A line of bash.
  - name: check
    run: echo "checking on $(hostname)"

  # A program with its arguments, without a shell between.
  - name: build
    exec: [echo, building, "version 1.0"]
    needs: check

  # Runs beside `build`: both wait for `check` only.
  - name: test
    run: |
      echo "testing in $STAGE"
      sleep 1
      echo "all is well"
    needs: check
    env:
      STAGE: staging # plain values only; secrets come from blocks: env_from
    timeout_ms: 30000

  - name: deploy
    run: echo "deployed"
    needs: [build, test] # waits for both, and does not run if one of them fails
    # env_from: [command-environment/deploy] # variables and secrets, read where it runs

  # Other kinds of commands:
  # - name: migrate
  #   script: ./migrate.sh # its first line says what runs it; it need not be executable
  #   working_dir: /srv/shop
  # - name: instances
  #   aws: ec2 describe-instances
"""


_COMMENTS = {
    ("validate",): "check it",
    ("run", "--dry-run"): "see what would run",
    ("run",): "run it",
    ("graph",): "draw it",
}


def write(plan: Path) -> Path:
    """Writes the plan, and beside it the schema of plans if none is there.

    Returns:
        Where the schema is.

    Raises:
        ValidationError: There is such a file, or its name is not one of YAML.
    """
    if plan.suffix == ".json":
        raise ValidationError(
            f"{plan}: what init writes is YAML; name it {plan.with_suffix('.yaml')}"
        )
    try:
        with plan.open("x", encoding="utf-8") as file:
            file.write(_starter(plan))
    except FileExistsError:
        raise ValidationError(
            f"{plan} is there already; cloudops init FILE names another"
        ) from None
    schema = plan.parent / SCHEMA
    if not schema.exists():
        schema.write_bytes(to_json(json_schema(), indent=2) + b"\n")
    return schema


def _starter(plan: Path) -> str:
    commands = {command_line("cloudops", *words, plan): _COMMENTS[words] for words in _COMMENTS}
    width = max(map(len, commands))
    lines = [f"#   {command:<{width}} {comment}" for command, comment in commands.items()]
    renew = f"{command_line('cloudops', 'schema')} > {command_line(plan.parent / SCHEMA)}"
    return STARTER.format(schema=SCHEMA, commands="\n".join(lines), renew=renew)
