"""Runs commands that flood and follows their lines as events; prints its own peak memory in bytes.

Arguments: how many commands at once, how many bytes each prints, and whether in `lines` or in one
`line` without a newline.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

from memory import peak

from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.events import line_events
from cloudops_prefect.execution import CommandExecution
from cloudops_prefect.models import ExecutionRequest, ShellCommand

LINES = "yes '{}' | head -c {{}}".format("0123456789" * 10)
LINE = "head -c {} /dev/zero"


async def run(execution, size) -> None:
    async def follow() -> int:
        groups = line_events(execution.log_path, uuid4(), uuid4())
        return sum([sum(len(event.line) for event in events) async for events in groups])

    following = asyncio.create_task(follow())
    await execution.run()
    # 101 bytes a line, one of which is the newline.
    assert await following >= size * 100 // 101
    assert execution.log_path.stat().st_size == size
    # Only now, and not kept: results of many commands at once are the caller's memory.
    result = execution.result_with_output()
    assert (result.exit_code, result.error) == (0, None), result.error
    assert len(result.stdout) == min(size, execution.config.max_output_bytes)


async def main(count, size, command) -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[4]) as directory:
        config = ExecutionConfig(log_dir=Path(directory), max_timeout_ms=600_000)
        executions = [
            CommandExecution(
                ExecutionRequest(
                    command=ShellCommand(command=command.format(size)), timeout_ms=600_000
                ),
                uuid4(),
                config,
                secrets=("a secret that never comes",),
            )
            for _ in range(count)
        ]
        await asyncio.gather(*(run(execution, size) for execution in executions))


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), LINE if sys.argv[3] == "line" else LINES))
print(peak())
