"""IPv6 prefix translation by the kernel's NPT targets: stateless and checksum-neutral (RFC 6296).

Inbound packets are translated before conntrack sees them and outbound ones after, so that the firewall knows inside
addresses only. ip6tables has no such chain before conntrack, only nftables has: the first makes the chain that
translates, the second leads packets there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.topology.model import PrefixTranslation

_INBOUND = "npt_inbound"


def translating_rules(outside: str, prefix: PrefixTranslation) -> str:
    """Text for ``ip6tables-restore``."""
    inward = f"DNPT --src-pfx {prefix.outside} --dst-pfx {prefix.inside}"
    outward = f"SNPT --src-pfx {prefix.inside} --dst-pfx {prefix.outside}"
    return (
        "*mangle\n"
        f":{_INBOUND} - [0:0]\n"
        f"-A {_INBOUND} -d {prefix.outside} -j {inward}\n"
        f"-A POSTROUTING -o {outside} -s {prefix.inside} -j {outward}\n"
        "COMMIT\n"
    )


def leading_rules(outside: str) -> str:
    """The nftables text that leads what arrives there; to be loaded after the other."""
    return (
        "table ip6 mangle {\n"
        f"    chain {_INBOUND} {{\n    }}\n\n"
        "    chain before_tracking {\n"
        "        type filter hook prerouting priority raw; policy accept;\n"
        f'        iifname "{outside}" jump {_INBOUND}\n'
        "    }\n"
        "}\n"
    )
