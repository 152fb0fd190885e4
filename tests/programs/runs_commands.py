"""Runs commands through the package: each argument is a JSON list of program and arguments.

Says `pid N` once it has started N, and passes on what they print.
"""

import asyncio
import json
import os
import sys

from cloudops_prefect.process import StopRequest, run_process


async def main():
    stop = StopRequest()
    commands = [
        run_process(
            json.loads(argument),
            env=os.environ,
            cwd=None,
            on_output=lambda _, chunk: os.write(1, chunk),
            stop=stop,
            timeout=None,
            grace_period=5,
            on_started=lambda pid: print("pid", pid, flush=True),
        )
        for argument in sys.argv[1:]
    ]
    await asyncio.gather(*commands)
    print("all ended", flush=True)


asyncio.run(main())
