"""Which service waits for which: names looked up, loops refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.faults import listed, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.topology.directory import Directory
    from lab.topology.faults import Fault
    from lab.topology.model import Service
    from lab.topology.services.known import Setting


def predecessors(after: list[str], services: Mapping[str, Mapping[str, object]], setting: Setting) -> tuple[str, ...]:
    """`after` as "node/service"; a bare name is a service of the same node."""
    found: list[str] = []
    for index, written in enumerate(after):
        at = setting.at / "after" / index
        before, slash, service = written.rpartition("/")
        node = setting.directory.node(before, at, setting.faults) if slash else setting.node
        if node is None:
            continue
        known = services[node.name]
        if service not in known:
            allowed = f"services of '{node.name}': {listed(known)}; or node/service"
            setting.faults.append(
                at.fault(f"no service {shown(service)} on '{node.name}'", allowed, near=(service, known))
            )
            continue
        found.append(f"{node.name}/{service}")
    return tuple(found)


def check_order(services: Mapping[str, tuple[Service, ...]], directory: Directory, faults: list[Fault]) -> None:
    """Every loop is a fault at the `after` of its first service."""
    waits = {f"{node}/{service.name}": service.after for node, each in services.items() for service in each}
    done: set[str] = set()
    for start in waits:
        loop = _loop_from(start, waits, done)
        if loop:
            node, _, service = loop[0].partition("/")
            at = directory.nodes[node].at / "services" / service / "after"
            faults.append(at.fault(f"a loop: {' after '.join(loop)}", "an order that ends", of_key=True))


def _loop_from(start: str, waits: Mapping[str, tuple[str, ...]], done: set[str]) -> list[str]:
    """The first loop met on the way from `start`, depth first and without recursion; `done` grows."""
    if start in done:
        return []
    way: list[str] = [start]
    on_way = {start}
    rest = [iter(waits[start])]
    while way:
        following = next(rest[-1], None)
        if following is None:
            done.add(way[-1])
            on_way.discard(way.pop())
            rest.pop()
        elif following in on_way:
            done.update(way)
            return [*way[way.index(following) :], following]
        elif following not in done and following in waits:
            way.append(following)
            on_way.add(following)
            rest.append(iter(waits[following]))
    return []
