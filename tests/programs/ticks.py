"""Prints for ever, and counts into a file what it has printed: `ticks.py FILE`."""

import sys
from pathlib import Path

with Path(sys.argv[1]).open("w", buffering=1) as count:
    number = 0
    while True:
        number += 1
        print("x" * 1000, flush=True)
        count.seek(0)
        print(number, file=count)
