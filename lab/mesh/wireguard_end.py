"""The service of a member of a WireGuard mesh, run inside its node: makes the interface, and ends with it.

`python3 -m lab.mesh.wireguard_end NAME ADDRESS PORT [--forward] [--await NODE]`, in the folder of the service, which
holds peers.json, private.key and NODE.pub. The kernel's WireGuard where it has one, else wireguard-go.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_PAUSE = 0.02  # seconds between two looks
_PATIENCE = 10.0  # seconds for the interface to appear


def main() -> int:
    """Serve until told to end; says `ready` once the awaited peer has answered."""
    parser = argparse.ArgumentParser("wireguard_end")
    parser.add_argument("name")
    parser.add_argument("address")
    parser.add_argument("port")
    parser.add_argument("--forward", action="store_true")
    parser.add_argument("--await", dest="awaited")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    own_program = _make_interface(options.name)
    try:
        _configure(options.name, options.address, options.port, forward=options.forward)
        while options.awaited is not None and not _has_answered(options.name, options.awaited):
            _pause()
        _say("ready")
        while own_program is None:
            signal.pause()
        return own_program.wait()
    finally:
        if own_program is not None:
            own_program.terminate()
            own_program.wait()
        else:
            _run("ip", "link", "delete", options.name)


def _make_interface(name: str) -> subprocess.Popen[bytes] | None:
    """The program that is the interface; None if the kernel is."""
    made = subprocess.run(["ip", "link", "add", name, "type", "wireguard"], check=False, capture_output=True)
    if made.returncode == 0:
        _say("the kernel's WireGuard")
        return None
    _say("wireguard-go, for the kernel has no WireGuard")
    program = subprocess.Popen(["wireguard-go", "-f", name])
    deadline = time.monotonic() + _PATIENCE
    while not Path(f"/var/run/wireguard/{name}.sock").exists():
        if program.poll() is not None or time.monotonic() > deadline:
            program.kill()
            sys.exit("wireguard-go made no interface")
        _pause()
    return program


def _configure(name: str, address: str, port: str, *, forward: bool) -> None:
    _run("wg", "set", name, "listen-port", port, "private-key", "private.key")
    peers: list[dict[str, Any]] = json.loads(Path("peers.json").read_text())
    for peer in peers:
        words = ["peer", _key(peer["node"]), "allowed-ips", ",".join(peer["allowed"])]
        words += ["endpoint", peer["endpoint"]] if peer["endpoint"] else []
        words += ["persistent-keepalive", str(peer["keepalive"])] if peer["keepalive"] else []
        _run("wg", "set", name, *words)
    _run("ip", "address", "add", address, "dev", name)
    if forward:
        _set(f"{name}/forwarding", "1")
        for which in (name, "all"):  # who is told of a nearer way could not take it
            _set(f"{which}/send_redirects", "0")
    _run("ip", "link", "set", name, "up")


def _set(name: str, value: str) -> None:
    Path(f"/proc/sys/net/ipv4/conf/{name}").write_text(value)


def _has_answered(name: str, node: str) -> bool:
    said = subprocess.run(["wg", "show", name, "latest-handshakes"], check=True, capture_output=True, text=True).stdout
    times = dict(line.split("\t") for line in said.splitlines())
    return int(times.get(_key(node), "0")) > 0


def _key(node: str) -> str:
    return Path(f"{node}.pub").read_text().strip()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def _pause() -> None:
    select.select([], [], [], _PAUSE)


if __name__ == "__main__":
    sys.exit(main())
