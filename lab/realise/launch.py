"""Start a lab and wait until all of it is ready."""

from __future__ import annotations

from pathlib import Path

from lab.errors import HostError
from lab.realise import registry
from lab.realise.starting import Progress, StartingSupervisor


def up(
    file: Path,
    *,
    name: str | None = None,
    services: bool = True,
    keep_failed: bool = False,
    progress: Progress | None = None,
) -> str:
    """Make the lab of a topology file real and wait until its services are ready; returns its name.

    Args:
        file: the topology.
        name: a name of its own for the lab; default: that of the topology.
        services: False for nodes and links alone.
        keep_failed: leave a lab whose services did not get ready for inspection.
        progress: told about every phase.

    Raises:
        TopologyError: the file has faults.
        UsageError: a lab of that name is up.
        HostError: this host or user lacks something that the lab needs.
        RealiseError: a step failed, or a service did not get ready; the lab is gone (but for `keep_failed`).
    """
    try:
        return _up(file, name, services=services, keep_failed=keep_failed, progress=progress or _silent)
    except HostError as error:
        # What the kernel said is one line; what the host lacks, and the line that mends it, is found by trying.
        from lab import host

        lacking = host.required(host.examine())
        if not lacking:
            raise
        raise HostError(f"{error}\n{host.refusal(lacking)}", lacking) from error


def _up(file: Path, name: str | None, *, services: bool, keep_failed: bool, progress: Progress) -> str:
    # The supervisor's interpreter starts while the topology language is loaded and reads the file.
    with StartingSupervisor() as supervisor:
        from lab.realise.order import order

        its_name, its_order = order(file, name, services=services, keep_failed=keep_failed)
        with registry.claim(its_name) as door:
            supervisor.order(its_order, door)
        supervisor.await_ready(progress)
    return its_name


def _silent(_phase: str, _done: int, _total: int, _note: str) -> None:
    pass
