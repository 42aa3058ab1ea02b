"""What gets in from outside without being asked for: port forwards, and IPv6, which no port translation hides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from lab.certify import classify
from lab.certify import packet as packets
from lab.certify.bench import UDP_ADDRESS, Bench, Side
from lab.certify.ear import Ear, Heard, frame_ear, holds, token, udp_ear
from lab.certify.packet import SYN, TCP, Endpoint, Packet, Segment
from lab.certify.seen import FilteringSeen, ForwardSeen

if TYPE_CHECKING:
    from lab.realise.lab import Lab

_TRIES = 3
_STRANGER = 3  # the peer at the other address and port


async def forwards(bench: Bench, lab: Lab) -> tuple[ForwardSeen, ...]:
    """Each declared port forward, spoken to by a stranger; its target is only listened at, whatever serves there."""
    node = lab.nodes[bench.subject.router]
    found = await asyncio.gather(*(_forward(bench, lab, forward) for forward in node.facts.get("forwards", ())))
    return tuple(found)


async def _forward(bench: Bench, lab: Lab, forward: dict[str, Any]) -> ForwardSeen:
    target, _, port = forward["to"].rpartition(":")
    name = f"{forward['protocol']} {forward['port']} -> {forward['to']}"
    place = _place(lab, target, bench)
    if place is None or not forward["addresses"]:
        return ForwardSeen(name, arrived=False, detail=f"{target} is no node on a network of the router's inside")
    node, interface, address = place
    to: Endpoint = forward["addresses"][0], forward["port"]
    end = address, int(port)
    stranger: Endpoint = bench.peers[_STRANGER][0], bench.port()
    neighbour: Endpoint = bench.address(UDP_ADDRESS), bench.port()
    with closing(frame_ear(lab.nodes[node], interface)) as ear:
        outer, inner = (_opening(bench, forward["protocol"], source, to) for source in (stranger, neighbour))
        come = await bench.carried(lambda: bench.observer.say(outer), ear, _is_for(end, outer), _TRIES)
        back = await bench.carried(lambda: bench.first.say(inner), ear, _is_for(end, inner), _TRIES)
    numbers = packets.ports(back) if back else None
    source = (back.source, numbers[0]) if back and numbers else None
    return ForwardSeen(name, come is not None and come.source == stranger[0], source, neighbour)


def _opening(bench: Bench, protocol: str, source: Endpoint, to: Endpoint) -> Packet:
    """A first packet that can be told from all others by what no NAT changes."""
    if protocol == "tcp":
        return Segment(source, to, bench.sequence(), 0, SYN).packet()
    return packets.datagram(source, to, token())


def _is_for(end: Endpoint, sent: Packet) -> Callable[[Packet], bool]:
    """Whether a packet is the one that was sent, on its way to this endpoint."""
    mark = slice(4, 8) if sent.protocol == TCP else slice(8, None)

    def judge(packet: Packet) -> bool:
        numbers = packets.ports(packet)
        same = packet.protocol == sent.protocol and packet.payload[mark] == sent.payload[mark]
        return same and numbers is not None and (packet.destination, numbers[1]) == end

    return judge


def _place(lab: Lab, target: str, bench: Bench) -> tuple[str, str, str] | None:
    """Node, interface and address of a forward's target, which is a node's name or an address."""
    for node in lab.facts["nodes"]:
        links = sorted(node["interfaces"], key=lambda link: link["network"] != bench.subject.inside)
        for link in links:
            for text in link["addresses"]:
                address = ip_interface(text).ip
                is_meant = target in (node["name"], str(address))
                if is_meant and address.version == 4 and link["network"] != bench.subject.outside:
                    return node["name"], link["name"], str(address)
    return None


async def ipv6(bench: Bench) -> dict[str, str]:
    """Words for: what the peer sees of the inside address, and who may send in."""
    near, far = bench.guests.first6, bench.guests.observer6
    if near is None or far is None:
        return {}
    with ExitStack() as stack:

        def listening(side: Side, address: str, port: int) -> Ear[Heard]:
            return stack.enter_context(closing(udp_ear(side.node, (address, port))))

        inside, fresh = (listening(bench.first, near, bench.port()) for _ in range(2))
        first_port = bench.peers[0][1]
        ears = [listening(bench.observer, address, first_port + more) for address in far for more in (0, 1)]
        return await _ipv6(bench, near, inside, fresh, ears)


async def _ipv6(
    bench: Bench, near: str, inside: Ear[Heard], fresh: Ear[Heard], ears: Sequence[Ear[Heard]]
) -> dict[str, str]:
    payload = token()
    first = ears[0].socket.getsockname()[:2]
    heard = await bench.carried(lambda: inside.socket.sendto(payload, first), ears[0], holds(payload))
    if heard is None:
        return {"outbound": "nothing passes"}
    words = {"outbound": "passes", "address": heard.source[0], "inside": near}
    answers = [token() for _ in ears]

    async def arrives(place: int) -> bool:
        send = lambda: ears[place].socket.sendto(answers[place], heard.source)  # noqa: E731
        return await bench.carried(send, inside, holds(answers[place]), _TRIES) is not None

    answered, other_port, other_address, both = await asyncio.gather(*(arrives(place) for place in range(4)))
    if not answered:  # so that silence says nothing of others
        return words
    words["filtering"] = classify.filtering([FilteringSeen(answered, other_port, other_address, both)]) or ""
    stray = token()
    to = (heard.source[0], fresh.socket.getsockname()[1])
    got = await bench.carried(lambda: ears[3].socket.sendto(stray, to), fresh, holds(stray), _TRIES)
    answers[0] = token()
    if got or await arrives(0):
        words["unsolicited"] = "passes" if got else "nothing passes"
    return words
