"""The homelab, shown: brought up, asked, drawn, taken down, by commands that a person would type (``make demo``)."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

TOPOLOGY = Path("topologies/homelab.yaml")
PICTURE = Path("reports/homelab.svg")
NAME = f"demo-{os.getpid()}"

PROVEN = """\
What this proved, on this machine's own kernel:
  - a home behind carrier-grade NAT is reached from a café: HTTPS by name, through an edge, without the edge's key;
  - the same by IPv6, from a host that has it;
  - who can reach what, measured for every node and service, not assumed;
  - the server sees who that client is, through two proxies: it answered with the café's address;
  - the phone, a member of the mesh, reaches the nas by its name there, and both ends tell by which way.
What it does not prove yet:
  - UDP and QUIC through an edge, many protocols on one port: `pytest scenarios` does.
Slow and lossy links and NATs that are what they claim have commands of their own: `lab link`, `lab nat`.\
"""


def main() -> int:
    """Show everything; the exit code of the first step that failed, 0 if none did."""
    started = time.monotonic()
    steps = (
        (
            "The whole network comes up: edges, carrier, home, café, with real sshd, nginx and dnsmasq, and edgeproxy.",
            _up(),
        ),
        ("Who can reach what?", _lab("reach", "--lab", NAME)),
        ("The phone in the café asks for a page of the nas at home.", _curl("phone", "https://git.nas.example.net/")),
        ("A stranger with IPv6 does the same.", _curl("stranger", "-6", "https://git.nas.example.net/")),
        (
            "The phone is a member of the mesh, and goes to the nas itself.",
            _exec("phone", "ping", "-c", "3", "nas.tailnet"),
        ),
        ("Which way do the mesh's packets take?", _lab("mesh", "--lab", NAME)),
        ("The picture of it.", _lab("graph", "--lab", NAME, "-o", str(PICTURE))),
    )
    PICTURE.parent.mkdir(exist_ok=True)
    code = 0
    try:
        for title, command in steps:
            code = _show(title, command)
            if code:
                return code
    finally:
        ended = _show("And it is gone, without trace.", _lab("down", NAME))
    print(f"\n{PROVEN}\n\nThe picture is {PICTURE}. All of it took {time.monotonic() - started:.1f} s.")
    return code or ended


def _up() -> list[str]:
    return _lab("up", str(TOPOLOGY), "--name", NAME)


def _curl(node: str, *arguments: str) -> list[str]:
    return _exec(node, "curl", "-sS", "--max-time", "10", *arguments)


def _exec(node: str, *command: str) -> list[str]:
    return _lab("exec", "--lab", NAME, node, "--", *command)


def _lab(*arguments: str) -> list[str]:
    return ["lab", *arguments]


def _show(title: str, command: list[str]) -> int:
    print(f"\n# {title}\n$ {shlex.join(command)}", flush=True)
    program = str(Path(sys.executable).parent / command[0])
    return subprocess.run([program, *command[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
