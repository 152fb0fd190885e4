"""Goes on in another process of another session every millisecond, and ignores SIGTERM.

The argument, if any, is a file whose lock is held as long as it goes on.
"""

import fcntl
import os
import signal
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1:]:
    # The lock is the open file's, which all of them share.
    fcntl.flock(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), fcntl.LOCK_EX)
print("ready", flush=True)
end = time.monotonic() + 300
while time.monotonic() < end:
    time.sleep(0.001)
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
