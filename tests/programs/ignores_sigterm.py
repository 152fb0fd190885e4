"""Ignores SIGTERM, says ready and stays."""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.alarm(60)
print("ready", flush=True)
while True:
    signal.pause()
