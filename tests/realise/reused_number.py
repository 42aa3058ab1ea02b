"""Gives the number of a lab's supervisor to another process, then ends the lab; process 1 of its own PID namespace.

Arguments: a topology, and `old` for a kernel that hands out no descriptor of a peer. Prints a JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from lab.realise import registry
from lab.realise.lab import Lab

# The number that this PID namespace gave last; the next process has the next one.
LAST_NUMBER = Path("/proc/sys/kernel/ns_last_pid")


def main() -> None:
    if "old" in sys.argv[2:]:
        registry.SO_PEERPIDFD = 32767  # an option that no kernel knows
    lab = Lab.up(sys.argv[1], name="reused")
    supervisor = registry.supervisor_of(lab._channel)
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)  # process 1 inherits it; from here on its number is free
    LAST_NUMBER.write_text(str(supervisor - 1))
    ours, theirs = os.pipe()
    stranger = os.fork()
    if stranger == 0:
        os.close(theirs)
        os.read(ours, 1)  # until process 1 ends
        os._exit(0)
    lab.down()
    is_alive = os.waitpid(stranger, os.WNOHANG) == (0, 0)
    print(json.dumps({"supervisor": supervisor, "stranger": stranger, "is_alive": is_alive}))


if __name__ == "__main__":
    main()
