"""An engine that is asked by lines of JSON, method and arguments, and answers in JSON."""

import asyncio
import json
import sys

from pydantic import TypeAdapter

from cloudops_prefect import ExecutionEngine, ExecutionError

ANYTHING = TypeAdapter(object)


async def answer(engine, method, *arguments):
    try:
        return await getattr(engine, method)(*arguments)
    except ExecutionError as error:
        return {"error": type(error).__name__, "message": str(error)}


async def main():
    async with ExecutionEngine() as engine:
        for line in iter(sys.stdin.readline, ""):
            print(ANYTHING.dump_json(await answer(engine, *json.loads(line))).decode(), flush=True)


asyncio.run(main())
