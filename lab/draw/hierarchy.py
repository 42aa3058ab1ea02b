"""Who hangs below whom: a tree of networks and nodes per connected part of a topology, the internet at the root."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lab.draw.fold import Group
from lab.topology.model import Interface, Network, Role, Topology


@dataclass(slots=True, eq=False)
class TreeNetwork:
    """A network, the nodes above it (of a root only) and below it."""

    network: Network
    level: int  # 0: a root
    above: list[TreeNode] = field(default_factory=list)
    below: list[TreeNode] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class TreeNode:
    """A node, its link to the network it hangs on, the networks that hang on it, and the links that close a ring."""

    group: Group
    level: int  # that of the network it hangs on
    up: Interface | None  # None: a root
    down: list[tuple[Interface, TreeNetwork]] = field(default_factory=list)
    extra: list[Interface] = field(default_factory=list)

    @property
    def is_leaf(self) -> bool:
        return not self.down and not self.extra


Root = TreeNetwork | TreeNode


def build(topology: Topology, groups: Sequence[Group]) -> tuple[Root, ...]:
    """A tree for each connected part; each network and each group is in exactly one."""
    return _Builder(topology, groups).forest()


def networks_of(roots: Iterable[Root]) -> Iterator[TreeNetwork]:
    """Every network, parents before children, left before right within a level."""
    return (item for item in _walk(roots) if isinstance(item, TreeNetwork))


def nodes_of(roots: Iterable[Root]) -> Iterator[TreeNode]:
    """Every node, parents before children, left before right within a level."""
    return (item for item in _walk(roots) if isinstance(item, TreeNode))


def _walk(roots: Iterable[Root]) -> Iterator[Root]:
    queue: deque[Root] = deque(roots)
    while queue:
        item = queue.popleft()
        yield item
        if isinstance(item, TreeNetwork):
            queue.extend((*item.above, *item.below))
        else:
            queue.extend(network for _, network in item.down)


class _Builder:
    """Walks breadth first; through routers before it goes through hosts with several links."""

    def __init__(self, topology: Topology, groups: Sequence[Group]) -> None:
        self.topology = topology
        self.groups = groups
        self.members: dict[str, list[tuple[Group, Interface]]] = defaultdict(list)
        for group in groups:
            for interface in group.first.interfaces:
                self.members[interface.network].append((group, interface))
        self.network_by_name = {network.name: network for network in topology.networks}
        self.networks: dict[str, TreeNetwork] = {}
        self.nodes: dict[str, TreeNode] = {}
        self.queue: deque[TreeNetwork] = deque()
        self.hosts: deque[TreeNode] = deque()  # with links that no router leads to, as far as is known

    def forest(self) -> tuple[Root, ...]:
        switches = [network for network in self.topology.networks if not network.point_to_point]
        roots: list[Root] = []
        for network in sorted(switches, key=lambda network: not network.internet):
            if network.name not in self.networks:
                roots.append(self._add_network(network.name, level=0))
                self._grow()
        for group in self.groups:
            if group.first.name not in self.nodes:
                node = TreeNode(group, level=0, up=None)
                self.nodes[group.first.name] = node
                roots.append(node)
                self._open(node, level=1)
                self._grow()
        lonely = [network.name for network in self.topology.networks if network.name not in self.networks]
        roots += [self._add_network(name, level=0) for name in lonely]
        self._close_rings()
        for tree in self.networks.values():
            tree.below = self._neighbours_together(tree)
        for root in roots:
            if isinstance(root, TreeNetwork) and any(node.down for node in root.below):
                root.above = [node for node in root.below if node.is_leaf]
                root.below = [node for node in root.below if not node.is_leaf]
        return tuple(roots)

    def _add_network(self, name: str, *, level: int) -> TreeNetwork:
        tree = TreeNetwork(self.network_by_name[name], level)
        self.networks[name] = tree
        self.queue.append(tree)
        return tree

    def _grow(self) -> None:
        while self.queue or self.hosts:
            if not self.queue:
                host = self.hosts.popleft()
                self._open(host, level=host.level + 1)
                continue
            tree = self.queue.popleft()
            for group, interface in self.members[tree.network.name]:
                if group.first.name in self.nodes:
                    continue
                node = TreeNode(group, tree.level, interface)
                self.nodes[group.first.name] = node
                tree.below.append(node)
                if group.first.role is Role.ROUTER:
                    self._open(node, level=tree.level + 1)
                elif len(group.first.interfaces) > 1:
                    self.hosts.append(node)

    def _open(self, node: TreeNode, *, level: int) -> None:
        for interface in node.group.first.interfaces:
            if interface is not node.up and interface.network not in self.networks:
                node.down.append((interface, self._add_network(interface.network, level=level)))

    def _close_rings(self) -> None:
        for node in self.nodes.values():
            used = [id(node.up), *(id(interface) for interface, _ in node.down)]
            node.extra = [interface for interface in node.group.first.interfaces if id(interface) not in used]

    def _neighbours_together(self, tree: TreeNetwork) -> list[TreeNode]:
        """The nodes below a network, so ordered that those that share another network stand side by side."""
        place = {id(other): position for position, other in enumerate(self.networks.values())}
        here = place[id(tree)]

        def side(node: TreeNode) -> int:
            """-1, 0 or 1: whether the other networks of a node stand left of, under or right of this one."""
            others = [self.networks[interface.network] for interface in node.extra]
            places = [place[id(other)] for other in others if other.level == tree.level]
            return 0 if not places else 1 if sum(places) / len(places) > here else -1

        waiting = sorted(tree.below, key=side)
        ordered: list[TreeNode] = []
        while waiting:
            node = waiting.pop(0)
            ordered.append(node)
            shared = {network.network.name for _, network in node.down}
            if shared:
                joined = [other for other in waiting if any(i.network in shared for i in other.extra)]
                ordered.extend(joined)
                waiting = [other for other in waiting if other not in joined]
        return ordered
