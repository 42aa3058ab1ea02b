"""NAT by natbox: its configuration, the rules that queue packets to it, and the service that runs it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lab.plan.step import Ready, StartService
from lab.topology.nat import NATBOX_SERVICE
from lab.topology.nat_behaviour import Engine, Hairpin

if TYPE_CHECKING:
    from lab.topology.model import Nat, Node


CONFIG = "natbox.json"
TABLE_SOCKET = "natbox.sock"  # where `natbox table` asks
ADMITTED = 0x4E42  # the mark of a packet that natbox lets in
_HAIRPINNED = 0x4E41  # the mark of a packet on its way from inside to inside
_LEAVING, _ARRIVING, _RETURNING = 0, 1, 2  # numbers of queues
_READY_TIMEOUT = 10.0  # seconds


def is_natbox(node: Node) -> bool:
    """Whether natbox translates for this node."""
    return node.nat is not None and node.nat.engine is Engine.NATBOX


def configuration(nat: Nat) -> dict[str, Any]:
    """What `natbox run` reads, key by key."""
    behaviour = nat.behaviour
    return {
        "outside": {"interface": nat.outside, "addresses": [str(address) for address in nat.pool]},
        "mapping": str(behaviour.mapping),
        "filtering": str(behaviour.filtering),
        "ports": asdict(behaviour.ports) | {"allocation": str(behaviour.ports.allocation)},
        "block_size": behaviour.port_block,
        "pooling": str(behaviour.pooling),
        "sessions_per_subscriber": behaviour.sessions,
        "timers": asdict(behaviour.timers),
        "refresh": str(behaviour.refresh),
        "hairpin": str(behaviour.hairpin),
        "icmp_errors": behaviour.icmp_errors,
        "tcp_unsolicited": "drop" if behaviour.unsolicited_tcp == "drop" else "reset",
        "forwards": [
            {
                "protocol": str(forward.protocol),
                "port": forward.port,
                "to": str(forward.address),
                "to_port": forward.to_port,
            }
            for forward in nat.forwards
        ],
    }


def queue_rules(nat: Nat) -> str:
    """The rules as text for ``iptables-restore``: those of ``natbox rules``.

    What arrives for an outside address is queued before conntrack sees it, what leaves after, so that conntrack and
    the firewall know inside addresses only.
    """
    raw = [":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    raw += [f"-A PREROUTING -d {address}/32 -j NFQUEUE --queue-num {_ARRIVING}" for address in nat.pool]
    # The first rule does nothing but make the kernel put fragments together where no firewall asks for it.
    mangle = [":FORWARD ACCEPT [0:0]", ":POSTROUTING ACCEPT [0:0]", "-A FORWARD -m conntrack --ctstate NEW"]
    dropped = [] if nat.behaviour.icmp_errors else ["destination-unreachable", "time-exceeded"]
    if nat.behaviour.hairpin is not Hairpin.NONE:  # two on one link, of which the kernel would tell the sender
        dropped.append("redirect")
    mangle += [f"-A POSTROUTING -p icmp -m icmp --icmp-type {kind} -j DROP" for kind in dropped]
    if nat.behaviour.hairpin is Hairpin.EXTERNAL_SOURCE:
        mangle.append(f"-A POSTROUTING -m mark --mark {_HAIRPINNED:#x} -j NFQUEUE --queue-num {_RETURNING}")
    # The firewall's resets belong to a connection that is not confirmed, and would not come back from a queue.
    reset = f"-o {nat.outside} -p tcp -m tcp --tcp-flags RST RST -m conntrack --ctstate RELATED -j ACCEPT"
    mangle += [f"-A POSTROUTING -s {address}/32 {reset}" for address in nat.pool]
    mangle.append(f"-A POSTROUTING -o {nat.outside} -j NFQUEUE --queue-num {_LEAVING}")
    return "\n".join(["*raw", *raw, "COMMIT", "*mangle", *mangle, "COMMIT", ""])


def natbox_service(node: str, nat: Nat) -> StartService:
    """Part of the network, so it runs in labs without services too."""
    return StartService(
        node=node,
        service=NATBOX_SERVICE,
        argv=("natbox", "run", CONFIG, TABLE_SOCKET),
        files=((CONFIG, json.dumps(configuration(nat), indent=1) + "\n"),),
        user="",
        environment=(),
        restart="on-failure",
        after=(),
        ready=Ready("log", pattern="^natbox: ready$"),
        ready_timeout=_READY_TIMEOUT,
        changes_user=False,
    )
