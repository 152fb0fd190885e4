"""Runs a command of another user and stops it once it is ready; says what came of it."""

import asyncio
import sys

from cloudops_prefect.process import StopRequest, run_process


async def main():
    stop = StopRequest()
    outcome = await run_process(
        sys.argv[1:],
        env={"PATH": "/usr/bin:/bin"},
        cwd=None,
        on_output=lambda *_: stop.request("cancelled"),
        stop=stop,
        timeout=None,
        grace_period=0.3,
    )
    print(outcome.ended_by, *(survivor.pid for survivor in outcome.survivors), flush=True)


asyncio.run(main())
