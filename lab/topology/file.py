"""The topology file as a person writes it: pydantic shapes, unknown keys forbidden, nothing looked up."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from lab.topology.faults import Wrong
from lab.topology.impairment_file import ImpairmentFile, ScheduledFile
from lab.topology.nat_behaviour import LAST_PORT
from lab.topology.scalars import (
    AddressText,
    DestinationText,
    ImageName,
    InterfaceName,
    Lifetime,
    Mac,
    PortNumber,
    PortRange,
    PrefixText,
    Value,
    Yes,
)

MOST_COPIES = 10_000

PolicyWord = Literal["accept", "drop", "reject"]


PresetWord = Literal[
    "home_router",
    "cafe",
    "corporate",
    "cgnat",
    "full_cone",
    "restricted_cone",
    "port_restricted_cone",
    "symmetric",
    "rfc",
]
DependenceWord = Literal["endpoint_independent", "address_dependent", "address_and_port_dependent"]


class AsWritten(BaseModel):
    """A mapping of the file: exactly the keys that are declared, no conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class TopologyFile(AsWritten):
    """The top of a file; networks, nodes and meshes are shaped one by one, so that a fault in one leaves the others."""

    name: str | None = None
    include: list[str] = []
    dns: list[str] = []
    networks: dict[str, Any] = {}
    nodes: dict[str, Any] = {}
    mesh: dict[str, Any] = {}


class NetworkFile(AsWritten):
    """`home: {prefixes: [192.168.1.0/24]}`."""

    prefixes: Annotated[list[PrefixText], Field(min_length=1, max_length=16)]
    internet: bool | None = None
    mtu: Annotated[int, Field(ge=576, le=65535)] = 1500
    point_to_point: bool = False


def _as_list(value: object) -> object:
    """The short forms of `address:` as a list; `auto` is the empty one."""
    if value == "auto":
        return []
    return [value] if isinstance(value, str) else value


class LinkFile(ImpairmentFile):
    """`home: auto`, `home: 192.168.1.10`, or a mapping; a given address replaces the automatic one of its prefix."""

    address: Annotated[
        list[AddressText],
        BeforeValidator(_as_list),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ] = Field(default=[])
    only: Literal["ipv4", "ipv6"] | None = None
    mtu: Annotated[int, Field(ge=576, le=65535)] | None = None
    mac: Mac | None = None
    interface: InterfaceName | None = None
    schedule: list[ScheduledFile] = Field(default=[])

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"address": value} if isinstance(value, str | list) else value


class RouteFile(AsWritten):
    """`{to: 10.0.0.0/8, via: 192.0.2.1}`."""

    to: DestinationText  # None: default
    via: AddressText


def exactly_one(written: object, keys: tuple[str, ...]) -> None:
    given = [key for key in keys if getattr(written, key) is not None]
    if len(given) != 1:
        raise Wrong(
            "more than one of " + ", ".join(given) if given else "none of " + ", ".join(keys), "exactly one of them"
        )


class ForwardFile(AsWritten):
    """`{tcp: 443, to: "nas:443"}`."""

    tcp: PortNumber | None = None
    udp: PortNumber | None = None
    to: str

    @model_validator(mode="after")
    def _one_protocol(self) -> ForwardFile:
        exactly_one(self, ("tcp", "udp"))
        return self


class PortsFile(AsWritten):
    """`{range: 1024-65535, allocation: random}`."""

    range: PortRange | None = None
    allocation: Literal["preserve", "sequential", "random"] | None = None
    parity: bool | None = None


class TimersFile(AsWritten):
    """`{udp: 30s, tcp_established: 2h}`."""

    udp: Lifetime | None = None
    udp_dns: Lifetime | None = None
    tcp_established: Lifetime | None = None
    tcp_transitory: Lifetime | None = None
    icmp: Lifetime | None = None


class PrefixTranslationFile(AsWritten):
    """`{inside: "fd00:1::/48", outside: "2001:db8:f::/48"}`."""

    inside: PrefixText
    outside: PrefixText


class NatFile(AsWritten):
    """The words of RFC 4787; `preset` stands for all that are not given."""

    outside: str
    preset: PresetWord = "home_router"
    mapping: DependenceWord | None = None
    filtering: DependenceWord | None = None
    ports: PortsFile = PortsFile()
    port_block: Annotated[int, Field(ge=1, le=LAST_PORT)] | None = None
    pool: Annotated[list[AddressText], Field(min_length=1)] | None = None
    pooling: Literal["paired", "arbitrary"] | None = None
    sessions: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    timers: TimersFile = TimersFile()
    refresh: Literal["outbound", "both"] | None = None
    hairpin: Literal["none", "forwards", "internal_source", "external_source"] | None = None
    icmp_errors: Literal["pass", "drop"] | None = None
    unsolicited_tcp: Literal["drop", "reject"] | None = None
    overloading: bool | None = None
    forwards: list[ForwardFile] = []
    upnp: bool = False
    ipv6_prefix: PrefixTranslationFile | None = None


class AllowFile(AsWritten):
    """`{tcp: 22}`, `{udp: 53, from: 192.168.1.0/24}`, `{icmp: true}`, `{tcp: 443, to: nas}`."""

    tcp: PortNumber | None = None
    udp: PortNumber | None = None
    icmp: Yes | None = None
    source: PrefixText = Field(None, alias="from")
    to: str | None = None

    @model_validator(mode="after")
    def _one_protocol(self) -> AllowFile:
        exactly_one(self, ("tcp", "udp", "icmp"))
        return self


class FirewallFile(AsWritten):
    """What is not given follows from `nat`: with it drop what comes from its outside, without it accept."""

    outside: str | None = None
    input: PolicyWord | None = None
    forward: PolicyWord | None = None
    ipv6: Literal["as_ipv4", "rfc6092", "open"] = "as_ipv4"
    allow: list[AllowFile] = []


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


OneOrMore = Annotated[
    list[str],
    BeforeValidator(_one_or_more),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class NodeFile(AsWritten):
    """A machine, or `count` of them; its services are shaped one by one."""

    role: Literal["host", "router"] = "host"
    count: Annotated[int, Field(ge=1, le=MOST_COPIES)] | None = None
    image: ImageName | None = None
    links: dict[str, LinkFile] = {}
    routes: list[RouteFile] = []
    nat: NatFile | None = None
    firewall: FirewallFile | None = None
    dns: list[str] | None = None
    hosts: dict[str, OneOrMore] = {}
    sysctls: dict[str, Value] = {}
    services: dict[str, Any] = {}
