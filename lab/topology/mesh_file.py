"""A mesh as a person writes it: `{driver: nebula, prefix: 10.144.0.0/16, lighthouses: [vps-a], members: [nas, pi]}`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from lab.topology.faults import Wrong, shown
from lab.topology.file import AsWritten
from lab.topology.scalars import PrefixText

AUTOMATIC = "auto"

Key = str | int  # the entry's place below the key: a name of a mapping, a number of a list


def parse_members(value: object) -> dict[str, tuple[str, Key]]:
    """`[nas, pi]`, or `{nas: 10.144.0.3, pi: auto}` -> by name: `auto` or the text of an address, and its place.

    Raises Wrong.
    """
    allowed = "a list of nodes, as [nas, pi], or nodes and addresses, as {nas: 10.144.0.3, pi: auto}"
    found: dict[str, tuple[str, Key]] = {}
    if isinstance(value, dict):
        for name, address in value.items():
            if not isinstance(address, str):
                raise Wrong(f"{shown(address)} as the address of {shown(name)}", "auto or an address, as 10.144.0.3")
            found[name] = (address, name)
        return found
    if not isinstance(value, list):
        raise Wrong(shown(value), allowed)
    for index, name in enumerate(value):
        if not isinstance(name, str):
            raise Wrong(shown(name), allowed)
        if name in found:
            raise Wrong(f"{shown(name)} twice", "each node once")
        found[name] = (AUTOMATIC, index)
    return found


_NAMES = {"type": "array", "items": {"type": "string"}}
_MEMBERS = {"anyOf": [_NAMES, {"type": "object", "additionalProperties": {"type": "string"}}]}

Members = Annotated[dict[str, Any], PlainValidator(parse_members), WithJsonSchema(_MEMBERS)]


class MeshFile(AsWritten):
    """An overlay network among nodes: each member has one address in it, wherever its links lead."""

    driver: Literal["nebula", "wireguard"]
    prefix: PrefixText
    lighthouses: Members
    members: Members = Field(default={})
    relays: list[str] | None = None  # None: the lighthouses
    domain: str | None = None
