"""How many network namespaces the kernel holds, also those that no process is in and no name leads to.

The kernel's slab of them is counted (slabinfo(5)). It never shows fewer than there are, but more, twice over: free
places that a processor keeps at hand, until the slab is shrunk; and since Linux 6.13 the namespaces that ended last,
whose memory is given back only when the next ones end (net/core/net_namespace.c, net_complete_free). So one of our own
is made to end: when the kernel is through with it, it is the only one that is counted too many, each time.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

SLABS = Path("/proc/slabinfo")
SHRINK = Path("/sys/kernel/slab/net_namespace/shrink")
ENDING = 0.3  # seconds that the kernel's worker is given to end a namespace; it takes about 55 ms here
ROUNDS = 4


def counted() -> int:
    """The number as the slab shows it now; 0 where the kernel does not tell (it tells root)."""
    with contextlib.suppress(OSError):
        SHRINK.write_text("1")
    with contextlib.suppress(OSError):
        found = re.search(r"^net_namespace\s+(\d+)", SLABS.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0


def settled(enough: int = 0) -> int:
    """The number when all that ended is gone, one of our own alone counted too many.

    That is the least of a few rounds; the first that says no more than `enough` is the last. Nothing is counted before
    one of our own has ended: where none ended since the machine started, none would be counted too many.
    """
    if not counted():
        return 0
    least = sys.maxsize
    for _ in range(ROUNDS):
        subprocess.run(["unshare", "--net", "true"], check=True)
        time.sleep(ENDING)  # nothing tells when the kernel is through
        least = min(least, counted())
        if least <= enough:
            break
    return least
