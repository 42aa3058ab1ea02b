"""Switching nodes of a running lab off and on, and freezing them: what `kill` and `pause` of a node do."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from lab.errors import LabError
from lab.plan.step import LoadRuleset, Plan
from lab.realise.executor import Executor
from lab.realise.flows import destroy_sockets, forget_flows
from lab.realise.links import Links, LiveLink
from lab.realise.node_processes import Stopped, end, of_node, stop
from lab.realise.nodes import FABRIC, Nodes
from lab.realise.services import Services

# Before connection tracking, and so before any other rule of the node. The loopback of a machine that stands still
# stands still too.
_DEAF = """table inet lab_paused {
    chain prerouting {
        type filter hook prerouting priority -450; policy drop;
    }

    chain output {
        type filter hook output priority -450; policy drop;
    }
}
"""
_ANSWERS_TO_ARP = "net.ipv4.conf.all.arp_ignore"
_NEVER = "8"  # for no address (kernel doc, ip-sysctl)


@dataclass(slots=True)
class Power:
    """Every node's switch."""

    nodes: Nodes
    services: Services
    plan: Plan
    links: Links
    _frozen: dict[str, Stopped] = field(default_factory=dict)
    _answered_to_arp: dict[str, str] = field(default_factory=dict)

    def switch_off(self, node: str, holder: str) -> None:
        """As by a power cut: no carrier, no process, no socket; nobody at the other end is told anything.

        Raises:
            RealiseError: a process did not end; the node is on again, with its services started anew.
        """
        place = self.nodes.place(node)
        ports = [link.port for link in self._links(node) if link.is_up]
        self.nodes.out_of_order[node] = "is switched off (`lab fault kill`)"
        self.nodes.switched_off.add(node)
        try:
            for running in self.services.of_node(node):
                self.services.hold(running.name, holder)
            for port in ports:
                self.nodes.requests_of(FABRIC).turn_off(port.port_index, f"cut {port.node} off {port.network}")
            self.nodes.send_requests()
            end(lambda: of_node(place), f"node {node}")
            destroy_sockets(place)
        except BaseException:
            self.nodes.close_requests()
            with contextlib.suppress(LabError):
                self.switch_on(node, holder)
            raise

    def switch_on(self, node: str, holder: str) -> None:
        """Boot it: flows forgotten, links up, then its services in order."""
        self._forget_flows(node)
        self.nodes.out_of_order.pop(node, None)
        self.nodes.switched_off.discard(node)
        for port in [link.port for link in self._links(node) if link.is_up]:
            self.nodes.requests_of(FABRIC).turn_on(port.port_index, f"plug {port.node} into {port.network}")
        try:
            self.nodes.send_requests()
        except BaseException:
            self.nodes.close_requests()
            raise
        for running in self.services.of_node(node):
            self.services.release(running.name, holder)

    def freeze(self, node: str) -> None:
        """Stop every process, and let nothing in or out; the links keep their carrier, as those of a hung machine do.

        Raises:
            HostError: nft or the kernel refused.
        """
        place = self.nodes.place(node)
        self._answered_to_arp[node] = self.nodes.sysctl_of(node, _ANSWERS_TO_ARP)
        load(self.nodes, {node: _DEAF})
        try:
            self.nodes.set_sysctls_of(node, ((_ANSWERS_TO_ARP, _NEVER),))
            self._frozen[node] = stop(lambda: of_node(place))
        except BaseException:
            self.thaw(node)
            raise
        self.nodes.out_of_order[node] = "stands still (`lab fault pause`)"

    def thaw(self, node: str) -> None:
        """Let it run on from where it stood."""
        load(self.nodes, {node: without_table("lab_paused")})
        self.nodes.set_sysctls_of(node, ((_ANSWERS_TO_ARP, self._answered_to_arp[node]),))
        self.nodes.out_of_order.pop(node, None)
        self._frozen.pop(node, Stopped()).go_on()

    def _links(self, node: str) -> list[LiveLink]:
        """Those that are cut, by `lab link` say, stay cut when the node boots."""
        return [link for link in self.links.by_end.values() if link.port.node == node]

    def _forget_flows(self, node: str) -> None:
        if any(isinstance(step, LoadRuleset) and step.node == node for step in self.plan.steps):
            forget_flows(self.nodes.place(node))


def without_table(name: str) -> str:
    """The nftables text that takes a table of family inet away, whether or not it is there."""
    return f"table inet {name}\ndelete table inet {name}\n"


def load(nodes: Nodes, texts: dict[str, str]) -> None:
    """Load nftables text into nodes at once, in each wholly or not at all.

    Raises:
        HostError: nft or the kernel refused one; others may have theirs.
    """
    steps = tuple(LoadRuleset(node, text) for node, text in texts.items())
    Executor(nodes, lambda _phase, _done, _total: None).build(Plan("", steps))
