"""Leaves a process in a session of its own, with no parent that we know.

Arguments: what the two do. `exit`: the main process ends once the other is ready. `silent`: the
other closes its output. `bare`: the other has an empty environment. `stranger`: it is another
user's.
"""

import os
import resource
import signal
import sys
import time

told = sys.argv[1:]
if "bare" in told and sys.platform == "linux":
    # The stamp is given right after the start; who is quicker, and leaves no other trace, escapes.
    deadline = time.monotonic() + 5
    while resource.getrlimit(resource.RLIMIT_RTTIME)[0] < 0 and time.monotonic() < deadline:
        time.sleep(0.001)
read_end, write_end = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if "silent" in told:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
        os.set_inheritable(write_end, True)
        program = "import os, signal, sys; signal.alarm(60); "
        program += "os.setuid(65534); " if "stranger" in told else ""
        program += "os.write(int(sys.argv[1]), b'.'); signal.pause()"
        argv = [sys.executable, "-ISc", program, str(write_end), *told]
        os.execve(sys.executable, argv, {} if "bare" in told else os.environ)
    os._exit(0)
os.wait()
os.read(read_end, 1)
print("ready", flush=True)
if "exit" not in told:
    signal.alarm(60)
    signal.pause()
