"""How large a lab this host can hold: open files, namespaces, memory."""

from __future__ import annotations

import resource
from pathlib import Path

from lab.host.facts import HostFacts
from lab.host.finding import Feature, Finding, Status, Verdict, finding

LABS = (Feature.LABS,)
ENOUGH_FILES = 4096
FILES_PER_NODE = 4  # the supervisor's: network and mount namespace, the control channel, a log
ENOUGH_NAMESPACES = 256  # each node takes one network, one mount and one UTS namespace
ENOUGH_MEMORY = 256  # MiB, for the homelab with its services
ENOUGH_NEIGHBOURS = 1024  # the kernel's default
_MOST_NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
_NODE_KINDS = ("net", "mnt", "uts")
_PROC_LINE = "mount | grep -w /proc  # must be procfs"
_FILES_LINE = "sudo prlimit --pid $$ --nofile=65536:65536"


def limit_findings(facts: HostFacts) -> list[Finding]:
    """Findings about the limits of the calling process."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return [
        finding("open files", LABS, judge_open_files(hard)),
        finding("namespace limits", LABS, judge_namespace_limits(facts)),
        finding("neighbours", LABS, judge_neighbours(_most_neighbours())),
        finding("memory", LABS, judge_memory(_available_memory())),
    ]


def judge_open_files(hard: int) -> Verdict:
    """`hard` is the hard limit of RLIMIT_NOFILE; the supervisor raises its own soft limit to it."""
    if hard == resource.RLIM_INFINITY:
        return Verdict(Status.OK, "no limit")
    found = f"{hard}: about {hard // FILES_PER_NODE} nodes fit"
    if hard >= ENOUGH_FILES:
        return Verdict(Status.OK, found)
    return Verdict(Status.LIMITED, found, _FILES_LINE)


def judge_namespace_limits(facts: HostFacts) -> Verdict:
    """The smallest of the user.max_*_namespaces that grow with the nodes."""
    limits = {kind: facts.max_namespaces[kind] for kind in _NODE_KINDS if kind in facts.max_namespaces}
    if not limits:
        return Verdict(Status.LIMITED, "user.max_*_namespaces cannot be read", _PROC_LINE)
    smallest = min(limits, key=lambda kind: limits[kind])
    found = f"user.max_{smallest}_namespaces is {limits[smallest]}: at most {max(0, limits[smallest] - 1)} nodes"
    low = [f"user.max_{kind}_namespaces=65536" for kind, limit in limits.items() if limit < ENOUGH_NAMESPACES]
    if not low:
        return Verdict(Status.OK, found)
    return Verdict(Status.LIMITED, found, f"sudo sysctl -w {' '.join(low)}")


def judge_neighbours(most: int | None) -> Verdict:
    """`most` entries in the kernel's neighbour tables, which all labs and the host share (arp(7), gc_thresh3)."""
    if most is None:
        return Verdict(Status.OK, f"{_MOST_NEIGHBOURS} cannot be read here; the host's own network namespace has it")
    found = f"{most} entries for all labs together: {_side(most)} nodes of a network can all talk to each other"
    if most >= ENOUGH_NEIGHBOURS:
        return Verdict(Status.OK, found)
    settings = " ".join(f"net.{family}.neigh.default.gc_thresh3=65536" for family in ("ipv4", "ipv6"))
    return Verdict(Status.LIMITED, found, f"sudo sysctl -w {settings}")


def judge_memory(available: int | None) -> Verdict:
    """`available` in MiB: what programs may take without swapping (MemAvailable of proc_meminfo(5))."""
    if available is None:
        return Verdict(Status.LIMITED, "/proc/meminfo cannot be read", _PROC_LINE)
    if available >= ENOUGH_MEMORY:
        return Verdict(Status.OK, f"{available} MiB available")
    found = f"{available} MiB available; the homelab with its services takes about {ENOUGH_MEMORY}"
    return Verdict(Status.LIMITED, found, "ps aux --sort=-rss | head  # what takes the memory")


def _side(entries: int) -> int:
    """How many nodes know each other with so many entries: n (n - 1) of them."""
    return int(0.5 + (0.25 + entries) ** 0.5)


def _most_neighbours() -> int | None:
    try:
        return int(_MOST_NEIGHBOURS.read_text())
    except (OSError, ValueError):
        return None


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:")), None)
