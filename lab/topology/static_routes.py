"""Routes that the file gives, checked; they win over worked-out ones with the same destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.faults import listed
from lab.topology.model import Route
from lab.topology.routes import DEFAULT

if TYPE_CHECKING:
    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.model import Interface, Prefix
    from lab.topology.source import At


def given_routes(node: NodeDraft, faults: list[Fault]) -> tuple[Route, ...]:
    """The routes of the key `routes`."""
    routes: dict[Prefix, Route] = {}
    for index, written in enumerate(node.written.routes):
        at = node.at / "routes" / index
        destination: Prefix = DEFAULT[written.via.version] if written.to is None else written.to
        if destination.version != written.via.version:
            faults.append(
                (at / "via").fault(f"{written.via}", f"an IPv{destination.version} address, as the destination")
            )
            continue
        if destination in routes:
            faults.append((at / "to").fault(f"a second route to {destination}", "one for each destination"))
            continue
        interface = _interface(node, written.via, at / "via", faults)
        if interface is not None:
            routes[destination] = Route(destination, written.via, interface.name)
    return tuple(routes.values())


def merge(worked_out: tuple[Route, ...], given: tuple[Route, ...]) -> tuple[Route, ...]:
    """Worked-out routes whose destination the file does not give, then the given ones; defaults first."""
    destinations = {route.destination for route in given}
    routes = [route for route in worked_out if route.destination not in destinations] + list(given)
    return tuple(
        sorted(routes, key=lambda route: (route.destination.version, route.destination.prefixlen != 0))
    )  # stable


def _interface(node: NodeDraft, via: object, at: At, faults: list[Fault]) -> Interface | None:
    for interface in node.interfaces:
        for address in interface.addresses:
            if address.ip == via:
                faults.append(at.fault(f"{via}, the node's own address", "the next router's address"))
                return None
            if address.ip.version == getattr(via, "version", None) and via in address.network:
                return interface
    if node.is_whole:
        on_link = listed(str(address.network) for interface in node.interfaces for address in interface.addresses)
        faults.append(at.fault(f"{via} is not on-link", f"an address in a prefix of the node's own links: {on_link}"))
    return None
