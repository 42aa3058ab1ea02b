"""Faults of the network: partitions, routers that forget their flows, outside addresses that change; and roaming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.errors import UsageError
from lab.realise.faults import Effect, Faults
from lab.realise.flows import forget_flows, forget_mappings
from lab.realise.power import load, without_table
from lab.realise.services import State

if TYPE_CHECKING:
    from lab.realise.links import Links, LiveLink
    from lab.realise.live_topology import LiveTopology
    from lab.realise.message import Message
    from lab.realise.nodes import Nodes
    from lab.realise.requests import Answer, Client, Handler
    from lab.realise.services import Services
    from lab.topology.model import Topology


@dataclass(slots=True, eq=False)
class _Partition:
    """One in force: the nodes that have its table, and their texts."""

    table: str
    one: str
    other: str
    texts: dict[str, str]


@dataclass(slots=True)
class NetworkFaults:
    """Brings these faults about; serves "move"."""

    nodes: Nodes
    services: Services
    faults: Faults
    topology: LiveTopology
    links: Links
    _partitions: list[_Partition] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.faults.know("partition", self._part)
        self.faults.know("flush-nat", self._flush, passing=True)
        self.faults.know("change-address", self._change_address)
        self.faults.also_healed.append(self._reset_links)
        self.topology.followers.append(self._follow)

    def handlers(self) -> dict[str, Handler]:
        """The requests served here."""
        return {"move": self._move}

    def _move(self, _client: Client, message: Message, _descriptors: list[int]) -> Answer:
        from lab.plan.roaming import moved

        now, declared = self.topology.now, self.topology.declared
        after = moved(now, declared, message["node"], message["network"], message["leaving"])
        awaited = self.topology.change(after)
        return {"await": awaited, "facts": self.topology.requests.facts}, []

    def _reset_links(self) -> list[str]:
        """Links as the topology declares them; the names of those that were not."""
        changed = [link.name for link in self.links.by_end.values() if self._is_changed(link)]
        self.links.reset()
        return [f"link {name}" for name in changed]

    def _is_changed(self, link: LiveLink) -> bool:
        return link.asked != link.declared or bool(link.problem) or not link.is_up

    def _part(self, name: str, targets: list[str]) -> Effect:
        from lab.plan.partition import partition

        one, other = targets
        made = _Partition(f"lab_{name}", one, other, partition(self.topology.now, one, other, f"lab_{name}"))
        self._load(made.table, {}, made.texts)
        self._partitions.append(made)

        def heal() -> list[str]:
            self._load(made.table, made.texts, {})
            self._partitions.remove(made)
            return []

        return Effect(f"nothing passes between their addresses; dropped in {', '.join(made.texts)}", heal)

    def _load(self, table: str, before: dict[str, str], after: dict[str, str]) -> None:
        """Replace a table in every node that has it or is to have it; a failure leaves it as it was."""
        nodes = [node for node in dict.fromkeys([*before, *after]) if node in self.nodes.places]
        try:
            load(self.nodes, {node: without_table(table) + after.get(node, "") for node in nodes})
        except BaseException:
            load(self.nodes, {node: without_table(table) + before.get(node, "") for node in nodes})
            raise

    def _follow(self, after: Topology) -> Callable[[], None]:
        """Partitions hold for the addresses that their sides have from now on."""
        from lab.plan.partition import partition

        texts = {}
        for each in self._partitions:
            try:
                texts[each.table] = partition(after, each.one, each.other, each.table)
            except UsageError as error:
                raise UsageError(
                    f"the partition of {each.one} and {each.other} could not be kept up: {error}"
                ) from error
        changed = [
            (each, each.texts, texts[each.table]) for each in self._partitions if each.texts != texts[each.table]
        ]

        def put(*, new: bool) -> None:
            for each, before, then in changed:
                self._load(each.table, each.texts, then if new else before)
                each.texts = then if new else before

        try:
            put(new=True)
        except BaseException:
            put(new=False)
            raise
        return lambda: put(new=False)

    def _flush(self, _name: str, targets: list[str]) -> Effect:
        (router,) = targets
        self._require_nat(router)
        count = self._forget(router)
        return Effect("forgot its mappings and flows" + (f" (about {count})" if count else ""))

    def _change_address(self, _name: str, targets: list[str]) -> Effect:
        router, *given = targets
        self._require_nat(router)
        if any(fault.kind == "change-address" and fault.targets[0] == router for fault in self.faults.in_force):
            raise UsageError(f"the address of {router} has changed already; heal that first")
        old = self._outside(router)
        awaited = self._renumber(router, *given)
        note = f"its outside has {self._outside(router)} instead of {old}, and its flows are gone"
        return Effect(note, lambda: self._renumber(router, old), awaited)

    def _renumber(self, router: str, *address: str) -> list[str]:
        """All of it or nothing; gives the services that start anew."""
        from lab.plan.roaming import renumbered

        before = self.topology.now
        awaited = self.topology.change(renumbered(before, self.topology.declared, router, *address))
        try:
            self._forget(router, with_natbox=not awaited)  # one that starts anew has none
        except BaseException:
            self.topology.change(before)
            raise
        return awaited

    def _forget(self, router: str, *, with_natbox: bool = True) -> int:
        """The flows of the kernel, and the mappings of natbox if it translates there; how many there were."""
        from lab.plan.nat.natbox import TABLE_SOCKET
        from lab.topology.nat import NATBOX_SERVICE

        place, count = self.nodes.place(router), 0
        for running in self.services.of_node(router) if with_natbox else ():
            if running.step.service == NATBOX_SERVICE and running.pid is not None and running.state is State.READY:
                try:
                    table = f"{running.files.folder_in_node}/{TABLE_SOCKET}"
                    count += forget_mappings(place, running.pid, table)
                finally:
                    self.nodes.return_home()
        return count + forget_flows(place)

    def _require_nat(self, router: str) -> None:
        from lab.plan.roaming import router_with_nat

        router_with_nat(self.topology.now, router)
        self.nodes.running_place(router)

    def _outside(self, router: str) -> str:
        from lab.plan.roaming import outside_address

        return str(outside_address(self.topology.now, router).ip)
