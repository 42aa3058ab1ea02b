"""How much memory the processes of a lab hold, shared pages counted once (PSS, proc(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path


def lab_memory(supervisor: int) -> int:
    """Bytes of user-space memory of every process in the lab's process namespace, plus its memory file system."""
    namespace = Path(f"/proc/{supervisor}/ns/pid").readlink()
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "ns/pid").readlink() != namespace:
                    continue
                rollup = (entry / "smaps_rollup").read_text()
            except OSError:
                continue
            found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
            total += int(found[1]) * 1024 if found else 0
    files = os.statvfs(f"/proc/{supervisor}/root/run")
    return total + (files.f_blocks - files.f_bfree) * files.f_frsize
