"""dnsmasq as a DNS server for given names: no DHCP, nothing taken from the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lab.topology import names
from lab.topology.directory import as_address
from lab.topology.faults import Wrong, listed
from lab.topology.file import OneOrMore
from lab.topology.model import Port, Protocol, ReadyPort, ServiceFile
from lab.topology.scalars import AddressText
from lab.topology.service_file import ServiceKeys
from lab.topology.services.known import KnownService, Program

if TYPE_CHECKING:
    from lab.topology.model import Address
    from lab.topology.services.known import Setting
    from lab.topology.source import At

_PORT = 53


class DnsmasqFile(ServiceKeys):
    """`dns: {use: dnsmasq, records: {"*.nas.example.net": [vps-a]}}`."""

    use: Literal["dnsmasq"]
    listen: Annotated[list[AddressText], Field(min_length=1)] | None = None
    records: dict[str, OneOrMore] = Field(default={})
    upstream: list[str] = Field(default=[])
    hosts_file: bool = False


def program(written: DnsmasqFile, setting: Setting) -> Program:
    """`*.name` stands for every name below `name` and for itself, as dnsmasq(8) has it."""
    lines = ["no-resolv", "pid-file=", "user=root", "group=root"]
    if not written.hosts_file:
        lines.append("no-hosts")
    if written.listen is not None:
        _check_own(written.listen, setting)
        lines += ["bind-interfaces", *(f"listen-address={address}" for address in written.listen)]
    for index, upstream in enumerate(written.upstream):
        lines += [f"server={address}" for address in _upstream(upstream, setting, setting.at / "upstream" / index)]
    for name, targets in written.records.items():
        lines += _record(name, targets, setting, setting.at / "records" / name)
    first = written.listen[0] if written.listen is not None else None
    return Program(
        argv=("dnsmasq", "--keep-in-foreground", "--conf-file=dnsmasq.conf", "--log-facility=-"),
        files=(ServiceFile("dnsmasq.conf", "\n".join(lines) + "\n"),),
        ports=(Port(Protocol.UDP, _PORT), Port(Protocol.TCP, _PORT)),
        ready=ReadyPort(setting.node.name, Protocol.UDP, _PORT, first),
    )


def _check_own(addresses: list[Address], setting: Setting) -> None:
    own = setting.node.addresses()
    for index, address in enumerate(addresses):
        if address not in own and not address.is_loopback and setting.node.is_whole:
            allowed = f"addresses of the node: {listed(map(str, own))}, or loopback"
            setting.faults.append((setting.at / "listen" / index).fault(f"{address}", allowed))


def _upstream(written: str, setting: Setting, at: At) -> list[Address]:
    address = as_address(written)
    if address is not None:
        return [address]
    node = setting.directory.node(written, at, setting.faults, or_else="or an address")
    nearest = setting.directory.nearest_usable(node, setting.node) if node is not None else None
    return [nearest] if nearest is not None else []


def _record(name: str, targets: list[str], setting: Setting, at: At) -> list[str]:
    domain = name.removeprefix("*.")
    try:
        names.HOST.check(domain)
    except Wrong as wrong:
        setting.faults.append(at.fault(str(wrong), of_key=True))
    found: list[Address] = []
    for index, target in enumerate(targets):
        address = as_address(target) or setting.directory.mesh_names.get(target)
        if address is not None:
            found.append(address)
            continue
        node = setting.directory.node(target, at / index, setting.faults, or_else="or an address")
        found += setting.directory.nearest(node) if node is not None else []
    # `local` makes a name without an address in the asked family an empty answer instead of a refusal.
    lines = [f"local=/{domain}/"]
    if domain != name:
        return lines + [f"address=/{domain}/{address}" for address in found]
    return lines + [f"host-record={domain},{address}" for address in found]


KNOWN = KnownService("dnsmasq", DnsmasqFile, program)
