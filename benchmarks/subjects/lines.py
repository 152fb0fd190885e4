"""Lines that a peer has kept, told as the hash of what would have been printed."""

import hashlib
import time
from collections.abc import Awaitable


async def digest(lines: Awaitable[list[str]]) -> dict[str, object]:
    """Awaits the lines; tells how long that took, and their hash and number."""
    started = time.perf_counter()
    kept = await lines
    taken = time.perf_counter() - started
    hashed = hashlib.sha256()
    for line in kept:
        hashed.update(line.encode() + b"\n")
    return {"seconds": taken, "sha256": hashed.hexdigest(), "lines": len(kept)}
