"""Saves an example of each kind of block; saving them again makes them what they are here.

The secret comes from the environment, so that it is in no file: `DEPLOY_TOKEN=... python
blocks/save_examples.py`.
"""

import asyncio
import os
from pathlib import Path

from pydantic import SecretStr

from cloudops_prefect import (
    CommandEnvironment,
    ExecutionConfigBlock,
    ExecutionPlanBlock,
    load_plan,
)

NIGHTLY = Path(__file__).parents[1] / "examples" / "nightly.yaml"


async def main() -> None:
    """Saves the blocks as `TYPE/example`."""
    token = os.environ.get("DEPLOY_TOKEN")
    environment = CommandEnvironment(
        variables={"DEPLOY_STAGE": "test"},
        secrets={"DEPLOY_TOKEN": SecretStr(token)} if token else {},
    )
    config = ExecutionConfigBlock(default_timeout_ms=60_000)
    plan = ExecutionPlanBlock(plan=load_plan(NIGHTLY))
    for block in (environment, config, plan):
        await block.asave("example", overwrite=True)
        print(f"{block.get_block_type_slug()}/example")


if __name__ == "__main__":
    asyncio.run(main())
