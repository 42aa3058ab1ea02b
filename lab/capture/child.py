"""The process that records for a `Recording`: however busy its starter is, it keeps up; when that is gone, it ends.

It is told what to do in one line of JSON on its standard input, records until the end of that input, and says what came
of it in one line on its standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import Any

from lab.capture.output import LatestBlocks, Output, WholeFile
from lab.capture.recorder import Bounds, Channel, Recorder
from lab.capture.ring import Ring

_PRIORITY = -10  # added to the niceness of its starter


def record(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order to its end; what came of it."""
    channels = [
        Channel(Ring(socket.socket(fileno=descriptor), size), is_ethernet)
        for descriptor, size, is_ethernet in order["rings"]
    ]
    try:
        output = _output(order)
        ending = Recorder(channels, output, Bounds(snaplen=order["snaplen"])).run(stop=0)
    except OSError as error:
        return {"error": error.strerror, "errno": error.errno, "file": error.filename}
    return {
        "ending": ending,
        "latest": output.latest if isinstance(output, LatestBlocks) else 0,
        "channels": [[each.packets, each.bytes, each.received, each.dropped] for each in channels],
    }


def _output(order: dict[str, Any]) -> Output:
    opening = bytes.fromhex(order["opening"])
    if order["name"] is None:
        first, second = order["files"]
        return LatestBlocks((first, second), order["bound"], opening)
    whole = WholeFile(order["files"][0], order["name"])
    whole.write([opening])
    return whole


def _order() -> dict[str, Any]:
    """The first line of the input; what follows is only waited for."""
    line = b""
    while not line.endswith(b"\n"):
        block = os.read(0, 64 * 1024)
        if not block:
            sys.exit(1)  # the starter is gone
        line += block
    order: dict[str, Any] = json.loads(line)
    return order


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):  # root's privilege: not to lose packets where processors are scarce
        os.nice(_PRIORITY)
    sys.stdout.write(json.dumps(record(_order())))
