"""Goes on in another process of another session every few milliseconds, and ignores SIGTERM.

The arguments, if any: after how many seconds, and a file whose lock it holds while it goes on.
"""

import fcntl
import os
import signal
import sys
import time

seconds = float(sys.argv[1]) if sys.argv[1:] else 0.003
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[2:]:
    # The lock is the open file's, which all of them share.
    file = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
print("ready", flush=True)
end = time.monotonic() + 30
while time.monotonic() < end:
    time.sleep(seconds)
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
