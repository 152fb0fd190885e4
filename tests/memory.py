"""How much memory a process has had."""

import resource
from pathlib import Path


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss, which on Linux begins with that of the process that started this one.
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
