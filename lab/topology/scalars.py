"""The scalars of the file as pydantic types: each takes what a person may type and says its own rule."""

from __future__ import annotations

import re
import shlex
import warnings
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from lab.topology import names
from lab.topology.faults import Wrong, shown
from lab.topology.units import parse_delay, parse_duration, parse_lifetime, parse_percentage, parse_rate, parse_size

if TYPE_CHECKING:
    from lab.topology.model import Prefix

_TEXT = {"type": "string"}


def parse_address(value: object) -> IPv4Address | IPv6Address:
    """An address without prefix length or zone. Raises Wrong."""
    allowed = "an address, as 192.0.2.1 or 2001:db8::1"
    if not isinstance(value, str):
        raise Wrong(shown(value), allowed)
    if "/" in value:
        raise Wrong(shown(value), f"{allowed}, without a prefix length: the network has it")
    try:
        address = ip_address(value)
    except ValueError as error:
        raise Wrong(shown(value), allowed) from error
    if isinstance(address, IPv6Address) and address.scope_id:
        raise Wrong(shown(value), f"{allowed}, without a zone")
    return address


def parse_prefix(value: object) -> Prefix:
    """A prefix whose host bits are zero; a lone address means itself. Raises Wrong."""
    allowed = "a prefix, as 192.0.2.0/24 or 2001:db8::/64"
    if not isinstance(value, str):
        raise Wrong(shown(value), allowed)
    try:
        prefix = ip_network(value, strict=False)
    except ValueError as error:
        raise Wrong(shown(value), allowed) from error
    if isinstance(prefix.network_address, IPv6Address) and prefix.network_address.scope_id:
        raise Wrong(shown(value), f"{allowed}, without a zone")
    if not re.search(r"/[0-9]{1,3}\Z", value) and "/" in value:
        raise Wrong(shown(value), f"{allowed}, with the length in bits")
    if ip_address(value.split("/")[0]) != prefix.network_address:
        raise Wrong(f"{shown(value)} with host bits set", f"the prefix is {prefix}")
    return prefix


def parse_destination(value: object) -> Prefix | None:
    """A route's destination; None stands for `default`, whose family the next hop tells. Raises Wrong."""
    if value == "default":
        return None
    if not isinstance(value, str) or not re.search(r"[0-9:]", value):
        raise Wrong(shown(value), "a prefix, as 192.0.2.0/24 or 2001:db8::/64, or default")
    return parse_prefix(value)


def parse_port(value: object) -> int:
    """1 to 65535. Raises Wrong."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise Wrong(shown(value), "a port number from 1 to 65535")
    return value


def parse_port_range(value: object) -> tuple[int, int]:
    """The first and last port of "20000-29999". Raises Wrong."""
    allowed = "two ports from 1 to 65535, the lower first, as 20000-29999"
    match = re.match(r"([0-9]{1,5})-([0-9]{1,5})\Z", value) if isinstance(value, str) else None
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise Wrong(shown(value), allowed)
    return first, last


def parse_listening(value: object) -> tuple[IPv4Address | IPv6Address | None, int]:
    """443, "127.0.0.1:443" or "[::1]:443" -> address (None: any) and port. Raises Wrong."""
    if isinstance(value, int) and not isinstance(value, bool):
        return None, parse_port(value)
    match = re.match(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})\Z", value) if isinstance(value, str) else None
    if match is None:
        raise Wrong(shown(value), 'a port, or an address and a port, as 443, "127.0.0.1:443" or "[::1]:443"')
    return parse_address(match[1] or match[2]), parse_port(int(match[3]))


def parse_command(value: object) -> list[str]:
    """A command as a list, or as a line with a shell's quoting but no shell. Raises Wrong."""
    allowed = "a command, as `sleep 60` or [sleep, 60]"
    if isinstance(value, list):
        if any(isinstance(word, bool) or not isinstance(word, str | int) for word in value):
            raise Wrong("a list with other things than words", allowed)
        words = [str(word) for word in value]
    elif isinstance(value, str):
        try:
            words = shlex.split(re.sub(r"\{\{[ \t]*(\S+?)[ \t]*\}\}", r"{{\1}}", value))  # a fact is one word
        except ValueError as error:
            raise Wrong(f"{shown(value)} ({error})", allowed) from error
    else:
        raise Wrong(shown(value), allowed)
    if not words or not words[0]:
        raise Wrong("an empty command", allowed)
    return words


def parse_mac(value: object) -> str:
    """A unicast MAC address, in lower case. Raises Wrong."""
    allowed = 'a unicast MAC address, as "02:00:00:00:00:01"'
    if not isinstance(value, str) or not re.match(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}\Z", value):
        raise Wrong(shown(value), allowed)
    mac = value.lower()
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":  # the group bit: IEEE 802-2014 section 8.2
        raise Wrong(f"{shown(value)}, which is no unicast address", allowed)
    return mac


def parse_value(value: object) -> str:
    """Text, or a whole number taken as its text. Raises Wrong."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Wrong(shown(value), "text or a whole number; quote it if it is text")
    text = str(value)
    if "\0" in text:
        raise Wrong(shown(value), "text without the character zero")
    return text


def parse_pattern(value: object) -> str:
    """A regular expression of Python. Raises Wrong."""
    if not isinstance(value, str) or not value:
        raise Wrong(shown(value), "a regular expression")
    try:
        with warnings.catch_warnings(action="ignore"):  # what a later Python may read otherwise is right today
            re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise Wrong(f"{shown(value)} ({error})", "a regular expression") from error
    return value


def parse_yes(value: object) -> bool:
    """The word `true`, where only that says something. Raises Wrong."""
    if value is not True:
        raise Wrong(shown(value), "true, or leave the key out")
    return True


def _schema(**keys: Any) -> WithJsonSchema:
    return WithJsonSchema(keys)


_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_COMMAND = {"anyOf": [_TEXT, {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1}]}

AddressText = Annotated[IPv4Address | IPv6Address, PlainValidator(parse_address), _schema(type="string")]
PrefixText = Annotated[Any, PlainValidator(parse_prefix), _schema(type="string")]
DestinationText = Annotated[Any, PlainValidator(parse_destination), _schema(type="string")]
PortNumber = Annotated[int, PlainValidator(parse_port), WithJsonSchema(_PORT)]
Listening = Annotated[tuple[Any, int], PlainValidator(parse_listening), _schema(anyOf=[_PORT, _TEXT])]
Command = Annotated[list[str], PlainValidator(parse_command), WithJsonSchema(_COMMAND)]
Mac = Annotated[str, PlainValidator(parse_mac), _schema(type="string", pattern="^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$")]
Value = Annotated[str, PlainValidator(parse_value), _schema(type=["string", "integer"])]
Pattern = Annotated[str, PlainValidator(parse_pattern), _schema(type="string", format="regex")]
Yes = Annotated[bool, PlainValidator(parse_yes), _schema(const=True)]
Duration = Annotated[
    float, PlainValidator(parse_duration), _schema(type="string", pattern=r"^[0-9]+(\.[0-9]+)?(ms|s|min)$")
]
_NUMBER = r"^[0-9]+(\.[0-9]+)?"
Delay = Annotated[int, PlainValidator(parse_delay), _schema(type="string", pattern=_NUMBER + "(us|ms|s)$")]
Rate = Annotated[int, PlainValidator(parse_rate), _schema(type="string", pattern=_NUMBER + "(bit|kbit|mbit|gbit)$")]
Size = Annotated[int, PlainValidator(parse_size), _schema(type="string", pattern=_NUMBER + "(B|kB|KiB|MB|MiB)$")]
Percentage = Annotated[float, PlainValidator(parse_percentage), _schema(type="string", pattern=_NUMBER + "%$")]
Lifetime = Annotated[float, PlainValidator(parse_lifetime), _schema(type="string", pattern="^[0-9]+(s|min|h)$")]
PortRange = Annotated[
    tuple[int, int], PlainValidator(parse_port_range), _schema(type="string", pattern="^[0-9]+-[0-9]+$")
]
InterfaceName = Annotated[str, PlainValidator(names.INTERFACE.check), _schema(type="string", maxLength=15)]
UserName = Annotated[str, PlainValidator(names.USER.check), _schema(type="string")]
ImageName = Annotated[str, PlainValidator(names.IMAGE.check), _schema(type="string")]
