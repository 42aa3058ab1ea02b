"""Interrupts `lab up` and counts what is there before, meanwhile and after; run as process 1 of namespaces of its own.

Arguments: the command. Prints a JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    before = what_is_there()
    with subprocess.Popen(sys.argv[1:]) as up:
        try:
            deadline = time.monotonic() + 60
            while (meanwhile := what_is_there())["networks"] < before["networks"] + 2 or not meanwhile["services"]:
                assert time.monotonic() < deadline, meanwhile
            up.send_signal(signal.SIGINT)
            code = up.wait(60)
        finally:
            up.kill()  # else, if that failed, the end of the block would wait for it for ever
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):  # the orphans that process 1 inherits
            pass
    print(json.dumps({"before": before, "meanwhile": meanwhile, "after": what_is_there(), "code": code}))


def what_is_there() -> dict[str, int]:
    processes = [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    networks, services = set(), 0
    for folder in processes:
        with contextlib.suppress(OSError):  # it has ended
            services += (folder / "comm").read_text() == "sleep\n"
            networks.add(str((folder / "ns/net").readlink()))
            for held in (folder / "fd").iterdir():  # a lab's process 1 is in one network at a time, and holds all
                with contextlib.suppress(OSError):
                    networks.add(str(held.readlink()))
    doors = Path("/proc/net/unix").read_text().count("@homelab-lab/")
    networks = {each for each in networks if each.startswith("net:")}
    return {"processes": len(processes), "networks": len(networks), "doors": doors, "services": services}


if __name__ == "__main__":
    main()
