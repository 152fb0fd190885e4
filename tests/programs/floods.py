"""Prints as fast as it can, also when it is asked to stop, for which it takes its time."""

import os
import signal
import time

ends = []


def on_sigterm(*_):
    ends.append(time.monotonic() + 0.2)


signal.signal(signal.SIGTERM, on_sigterm)
print("ready", flush=True)
while not ends or time.monotonic() < ends[0]:
    os.write(1, b"flood " * 10_000)
os.write(1, b"the last words")
