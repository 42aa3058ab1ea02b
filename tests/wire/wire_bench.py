"""A test bench for one wire: two nodes (network namespaces), a TAP in each, linkwire between them.

a: tap-a 192.0.2.1/24  ---- linkwire ----  tap-b 192.0.2.2/24 :b
   2001:db8::1/64                                2001:db8::2/64
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
DEADLINE_S = 60.0
ADDRESSES = {"a": ("192.0.2.1", "2001:db8::1"), "b": ("192.0.2.2", "2001:db8::2")}


def linkwire() -> str:
    """The installed program, beside this Python or on PATH."""
    found = shutil.which("linkwire", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert found, "linkwire is not installed: make setup"
    return found


class Namespace:
    """A network namespace that lives as long as its holder, a process that only waits for its stdin to close."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self.pid = self._holder.pid
        ours = Path("/proc/self/ns/net").readlink()
        wait_until(lambda: Path(f"/proc/{self.pid}/ns/net").readlink() != ours, "the namespace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.__exit__(kind, error, trace)

    def enter(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command]

    def run(self, *command: str) -> str:
        done = subprocess.run(self.enter(*command), capture_output=True, text=True, check=False, timeout=DEADLINE_S)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def do(self, act: Callable[[], T]) -> T:
        """What `act` gives inside this namespace: a thread enters it, acts and ends."""

        def entered() -> T:
            libc = ctypes.CDLL(None, use_errno=True)
            with Path(f"/proc/{self.pid}/ns/net").open() as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            return act()

        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(entered).result()

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        made = self.do(lambda: socket.socket(family, kind, protocol))
        made.settimeout(DEADLINE_S)
        return made

    def tap(self, name: str, flags: int) -> int:
        """A descriptor of the TAP device `name`, attached with these flags."""

        def attached() -> int:
            descriptor = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            return descriptor

        return self.do(attached)

    def transmitted(self, device: str) -> int:
        """Frames that have left the device; for a TAP: that its program has read."""
        return self._packets(device, "tx")

    def received(self, device: str) -> int:
        """Frames that have come by the device; for a TAP: that its program has written."""
        return self._packets(device, "rx")

    def _packets(self, device: str, way: str) -> int:
        link = json.loads(self.run("ip", "-json", "-statistics", "link", "show", device))[0]
        return int(link["stats64"][way]["packets"])

    def counter(self, table: str, protocol: str, name: str) -> int:
        """One counter of /proc/net/snmp or /proc/net/netstat in this namespace."""
        lines = [
            line.split()[1:]
            for line in self.run("cat", f"/proc/net/{table}").splitlines()
            if line.startswith(f"{protocol}:")
        ]
        names, values = lines
        return int(values[names.index(name)])


@dataclass
class Wire:
    """Two nodes and the wire between them."""

    a: Namespace
    b: Namespace
    fabric: Namespace
    process: subprocess.Popen[str]

    def end(self) -> dict[str, dict[str, int]]:
        """SIGTERM; gives the counters that the wire printed."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=DEADLINE_S)
        assert self.process.returncode == 0
        assert out.count("\n") == 1, out
        counters: dict[str, dict[str, int]] = json.loads(out)
        return counters


@contextmanager
def laid_wire(*, mtu: int = 1500) -> Iterator[Wire]:
    """A wire that carries; every process of it is ended at the end, whatever happened."""
    with ExitStack() as stack:
        fabric, a, b = (stack.enter_context(Namespace()) for _ in range(3))
        for tap in ("tap-a", "tap-b"):
            fabric.run("ip", "tuntap", "add", tap, "mode", "tap")
        process = stack.enter_context(
            subprocess.Popen(fabric.enter(linkwire(), "tap-a", "tap-b"), stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        for tap in ("tap-a", "tap-b"):
            fabric.run("ip", "link", "set", tap, "up")
            wait_until(partial(has_carrier, fabric, tap), f"carrier of {tap}")
        for name, node in (("a", a), ("b", b)):
            fabric.run("ip", "link", "set", f"tap-{name}", "netns", str(node.pid))
            bring_up(node, f"tap-{name}", ADDRESSES[name], mtu)
        for node, tap in ((a, "tap-a"), (b, "tap-b")):
            wait_until(partial(has_carrier, node, tap), f"carrier of {tap}")
        yield Wire(a, b, fabric, process)


def bring_up(node: Namespace, tap: str, addresses: tuple[str, str], mtu: int) -> None:
    v4, v6 = addresses
    node.run("ip", "link", "set", tap, "mtu", str(mtu), "up")
    node.run("ip", "address", "add", f"{v4}/24", "dev", tap)
    node.run("ip", "address", "add", f"{v6}/64", "dev", tap, "nodad")


def has_carrier(node: Namespace, tap: str) -> bool:
    state: list[dict[str, Any]] = json.loads(node.run("ip", "-json", "link", "show", tap))
    return "LOWER_UP" in state[0]["flags"]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Asks until it holds; fails after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S} s"
        os.sched_yield()
