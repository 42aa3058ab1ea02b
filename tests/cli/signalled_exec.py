"""`lab exec` that gets a signal once its command has said a line, and before it does anything itself after the start.

Arguments: the number of the signal, then those of `lab exec`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from lab.cli import execution, main
from lab.realise.message import Message

NUMBER = signal.Signals(int(sys.argv[1]))
start = execution.start


def start_and_be_signalled(channel: socket.socket, request: Message, descriptors: tuple[int, ...] = ()) -> list[int]:
    said, says = os.pipe()
    received = start(channel, request, (descriptors[0], says, descriptors[2]))
    os.read(said, 100)
    os.kill(os.getpid(), NUMBER)
    return received


if __name__ == "__main__":
    execution.start = start_and_be_signalled
    sys.exit(main.main(["exec", *sys.argv[2:]]))
