"""Kill a lab's supervisor, or whoever starts or ends it, at random moments, and look for what is left.

    python -m tests.kill.kill_points --runs 1000 [--seed N]

Each run brings a lab up (NAT, nftables, services; every other one with linkwire, natbox and a mesh) or takes one down,
kills with SIGKILL after a random time, and then demands within a deadline: no process of the lab, no network namespace
more than before (counted by the kernel, where /proc/slabinfo may be read), no interface, no mount, no socket name.
Exit 1 if anything was left, with what.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lab.realise import registry
from tests.kill import network_namespaces

TOPOLOGY = """
# client --- inside 192.168.1.0/24 --- router (NAT) --- internet 203.0.113.0/24 --- server
networks:
  internet: {prefixes: [203.0.113.0/24]}
  inside: {prefixes: [192.168.1.0/24]}
nodes:
  server:
    links: {internet: 203.0.113.10}
    services:
      first: {run: sleep 1000}
      web: {run: python3 -m http.server 80, ready: {tcp: 80}, after: [first]}
  router: {role: router, links: {internet: 203.0.113.1, inside: auto}, nat: {outside: internet}}
  client: {links: {inside: auto}}
"""
WITH_ALL = """
# The same with linkwire on two links, a NAT of natbox and a mesh of nebula: processes and TAPs of the lab's own.
networks:
  internet: {prefixes: [203.0.113.0/24]}
  inside: {prefixes: [192.168.1.0/24]}
nodes:
  server: {links: {internet: {address: 203.0.113.10, delay: 1ms}}}
  router:
    role: router
    links: {internet: 203.0.113.1, inside: auto}
    nat: {outside: internet, mapping: address_dependent, filtering: address_dependent}
  client: {links: {inside: {delay: 1ms}}}
mesh:
  one: {driver: nebula, prefix: 10.144.0.0/16, lighthouses: [server], members: [client]}
"""
LONGEST_UP = 0.5  # seconds; kills fall anywhere before, and a few after, the lab is up
LONGEST_DOWN = 0.2
DEADLINE = 60.0  # seconds until all must be gone; the kernel frees namespaces in a worker of its own
SUPERVISOR = "lab.realise.supervisor"


@dataclass(frozen=True)
class Trace:
    """What a host shows of labs."""

    processes: frozenset[str]
    network_namespaces: int
    interfaces: frozenset[str]
    mounts: frozenset[str]
    names: tuple[str, ...]


def main() -> int:
    """Run the kills and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "plain.yaml"), Path(folder, "all.yaml")]
        for file, text in zip(files, (TOPOLOGY, WITH_ALL), strict=True):
            file.write_text(text)
        clean = trace(network_namespaces.settled())
        for number in range(arguments.runs):
            name = f"kill-{os.getpid()}-{number}"
            what, outcome = _kill_once(chance, files[number % len(files)], name)
            seen[f"{what}: {outcome}"] += 1
            left, now = leftovers(clean, name)
            if now.network_namespaces < clean.network_namespaces:  # of others that have ended: no room for leaks
                clean = replace(clean, network_namespaces=network_namespaces.settled())
            if left:
                print(f"run {number} of {what} (seed {arguments.seed}) left behind: {left}")
                return 1
    for line, count in sorted(seen.items()):
        print(f"{count:5}  {line}")
    print(f"{arguments.runs} kills, nothing left behind")
    return 0


def _kill_once(chance: random.Random, file: Path, name: str) -> tuple[str, str]:
    """One kill at a random moment; what was killed, and how far the victim had come."""
    victim = chance.choice(["supervisor during up", "starter during up", "supervisor during down", "ender during down"])
    if victim.endswith("during up"):
        starter = _command("up", str(file), "--name", name, "--quiet")
        time.sleep(chance.uniform(0, LONGEST_UP))  # the moment of the kill: chance is the point
        if victim.startswith("supervisor"):
            _kill_supervisor(starter.pid, name)
        else:
            starter.kill()
        starter.wait()
        # The moment may fall before there is a supervisor, or after a starter has let go of a lab that is ready.
        undisturbed = name in registry.names() and _command("down", name).wait() == 0
        return victim, "nothing to kill yet, or up already" if undisturbed else "killed while building"
    if _command("up", str(file), "--name", name, "--quiet").wait() != 0:
        raise RuntimeError("a lab that nobody disturbs must come up")
    channel = registry.knock(name)
    supervisor = registry.supervisor_of(channel)
    channel.close()
    ender = _command("down", name)
    time.sleep(chance.uniform(0, LONGEST_DOWN))
    ended = ender.poll() is not None
    if victim.startswith("supervisor"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, signal.SIGKILL)
    else:
        ender.kill()
        if name in registry.names():
            _command("down", name).wait()
    ender.wait()
    return victim, "down already" if ended else "killed while ending"


def _command(*arguments: str) -> subprocess.Popen[bytes]:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "lab.cli.main", *arguments], **quiet)  # type: ignore[call-overload,no-any-return]


def _kill_supervisor(starter: int, name: str) -> None:
    """SIGKILL to all of the supervisor's session: it is a child of the starter until the lab's process 1 exists."""
    for _, parent, session, _ in _processes():
        if parent == starter:
            for other, _, its_session, _ in _processes():
                if its_session == session:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(other, signal.SIGKILL)
            return
    with contextlib.suppress(Exception):  # already detached: the name leads to it
        channel = registry.knock(name)
        os.kill(registry.supervisor_of(channel), signal.SIGKILL)
        channel.close()


def leftovers(clean: Trace, name: str) -> tuple[list[str], Trace]:
    """What is there that was not before, once the deadline has passed, empty as soon as nothing is; and all there is.

    What was there before may go meanwhile: the end of others' labs is not this one's doing.
    """
    deadline = time.monotonic() + DEADLINE
    while True:
        now = trace(network_namespaces.settled(enough=clean.network_namespaces))
        left = [f"process {process}" for process in now.processes - clean.processes]
        if now.network_namespaces > clean.network_namespaces:
            left.append(f"{now.network_namespaces - clean.network_namespaces} network namespaces")
        left += [f"interface {name}" for name in now.interfaces - clean.interfaces]
        left += [f"mount {line}" for line in now.mounts - clean.mounts]
        if name in now.names:
            left.append(f"socket name {name}")
        if not left or time.monotonic() > deadline:
            return left, now
        time.sleep(0.02)


def trace(namespaces: int) -> Trace:
    """The host as it is; its network namespaces are counted by the caller."""
    return Trace(
        processes=frozenset(f"{pid} {line}" for pid, _, _, line in _processes() if _is_of_a_lab(pid, line)),
        network_namespaces=namespaces,
        interfaces=frozenset(entry.name for entry in Path("/sys/class/net").iterdir()),
        mounts=frozenset(Path("/proc/self/mountinfo").read_text().splitlines()),
        names=tuple(registry.names()),
    )


def _is_of_a_lab(pid: int, line: str) -> bool:
    """Whether a process is a supervisor, or lives in another process namespace than this one."""
    if SUPERVISOR in line:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
    return False


def _processes() -> Iterator[tuple[int, int, int, str]]:
    """Every process: its id, parent, session and command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] == "Z":
                continue
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(entry.name), int(fields[1]), int(fields[3]), line


if __name__ == "__main__":
    sys.exit(main())
