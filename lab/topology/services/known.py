"""What a known service is: its keys as written, and how they become a program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.topology.model import Port, ReadyCommand, ReadyLog, ReadyPort, Restart, ServiceFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.topology.directory import Directory
    from lab.topology.draft import NodeDraft
    from lab.topology.facts import Facts
    from lab.topology.faults import Fault
    from lab.topology.service_file import ServiceKeys
    from lab.topology.source import At
    from lab.topology.texts import Texts

Ready = ReadyPort | ReadyLog | ReadyCommand


@dataclass(frozen=True, slots=True)
class Program:
    """What a service runs, and what holds for it unless the file says otherwise."""

    argv: tuple[str, ...]
    files: tuple[ServiceFile, ...] = ()
    ports: tuple[Port, ...] = ()  # empty: those of `ready`
    ready: Ready | None = None
    restart: Restart = Restart.NEVER
    after: tuple[str, ...] = ()  # "node/service", beside what the file says
    changes_user: bool = False


@dataclass(frozen=True, slots=True)
class SshServer:
    """An sshd: the service that runs it, its port, and the nodes that may log in."""

    service: str
    port: int
    clients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a service stands: its node, its place in the file, and all that it may refer to."""

    name: str
    node: NodeDraft
    at: At
    directory: Directory
    facts: Facts
    texts: Texts
    faults: list[Fault]
    ssh: dict[str, SshServer] = field(default_factory=dict)  # by node
    unsure: frozenset[str] = frozenset()  # nodes with a service whose shape has faults: it may be anything

    def render(self, text: str, at: At) -> str:
        """A text of the topology file with its facts."""
        return self.texts.render(text, self.facts, at)


@dataclass(frozen=True, slots=True)
class KnownService:
    """An entry of the catalogue."""

    name: str
    written: type[ServiceKeys]
    program: Callable[[Any, Setting], Program | None]  # None: a fault was noted
