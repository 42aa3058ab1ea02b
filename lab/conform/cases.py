"""What who receives PROXY headers over TCP must take, and what not (sections 2.1 to 2.2.8 of the specification)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from lab.conform.header import (
    LONGEST_LINE,
    SIGNATURE,
    STREAM,
    Endpoints,
    block,
    crc32c,
    family,
    header,
    line,
    named,
    summed,
    tlv,
)

FOUR = Endpoints(("192.0.2.33", 40001), ("198.51.100.7", 443))
SIX = Endpoints(("2001:db8::33", 40002), ("2001:db8:7::1", 443))
_TCP4, _TCP6, _UNIX = family(FOUR), family(SIX), 0x30 | STREAM
_UNKNOWN = b"PROXY UNKNOWN\r\n"


class Must(Enum):
    """What the specification asks of a receiver."""

    NAME = "take, from whom it says"
    NAME_OR_REFUSE = "take, from whom it says; or refuse"
    OWN = "take, from the sender itself"
    OWN_OR_REFUSE = "take, from the sender itself; or refuse"
    REFUSE = "refuse"
    REFUSE_OR_SKIP = "refuse, if it reads fields"

    @property
    def may_take(self) -> bool:
        """Whether who takes it does right."""
        return self is not Must.REFUSE

    @property
    def may_refuse(self) -> bool:
        """Whether who refuses it does right."""
        return self not in (Must.NAME, Must.OWN)


@dataclass(frozen=True)
class Case:
    """A header, what is asked of who gets it, and where that stands. `pieces`: bytes sent at once, 0 for all."""

    name: str
    section: str
    must: Must
    sent: bytes
    client: tuple[str, int] | None = None
    pieces: int = 0


def cases() -> list[Case]:
    """All, each with a name of its own."""
    return [*_taken(), *_own(), *_no_lines(), *_no_headers(), *_no_fields()]


def _taken() -> Iterator[Case]:
    def case(name: str, section: str, ends: Endpoints, sent: bytes, pieces: int = 0) -> Case:
        # A header comes as one segment from who keeps to the rules; who waits for the rest does a kindness (section 2).
        must = Must.NAME_OR_REFUSE if pieces else Must.NAME
        return Case(name, section, must, sent, ends.client, pieces)

    yield case("v1 TCP4", "2.1", FOUR, line(FOUR))
    yield case("v1 TCP6", "2.1", SIX, line(SIX))
    yield case("v1 TCP6 in capitals", "2.1", SIX, line(SIX).replace(b"2001:db8", b"2001:DB8"))
    yield case("v1 TCP6 with all its groups", "2.1", SIX, line(SIX).replace(b"db8::33", b"db8:0:0:0:0:0:33"))
    yield case("v1, byte by byte", "2.1", FOUR, line(FOUR), 1)
    yield case("v2 IPv4", "2.2", FOUR, named(FOUR))
    yield case("v2 IPv6", "2.2", SIX, named(SIX))
    yield case("v2, byte by byte", "2.2", FOUR, named(FOUR), 1)
    yield case("v2 IPv6 with fields, seven bytes at a time", "2.2", SIX, summed(SIX, tlv(0x04, bytes(40))), 7)
    yield case("ALPN", "2.2.1", FOUR, named(FOUR, tlv(0x01, b"h2")))
    yield case("AUTHORITY", "2.2.2", FOUR, named(FOUR, tlv(0x02, b"nas.example")))
    yield case("CRC32C", "2.2.3", FOUR, summed(FOUR))
    yield case("CRC32C before other fields", "2.2.3", SIX, _summed_first())
    yield case("NOOP, empty", "2.2.4", FOUR, named(FOUR, tlv(0x04, b"")))
    yield case("UNIQUE_ID of 128 bytes", "2.2.5", FOUR, named(FOUR, tlv(0x05, bytes(range(128)))))
    ssl = b"\x01" + bytes(4) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"client.example")
    yield case("SSL with fields of its own", "2.2.6", FOUR, named(FOUR, tlv(0x20, ssl)))
    yield case("NETNS", "2.2.7", FOUR, named(FOUR, tlv(0x30, b"home")))
    yield case("a field of one's own", "2.2.8", FOUR, named(FOUR, tlv(0xE7, b"anything")))
    yield case("a field that nobody knows yet", "2.2.8", FOUR, named(FOUR, tlv(0x70, b"anything")))
    yield case("fields of 1,500 bytes", "2.2", FOUR, named(FOUR, tlv(0x04, bytes(1497))))


def _own() -> Iterator[Case]:
    for name, section, sent in [
        ("v1 UNKNOWN", "2.1", _UNKNOWN),
        ("v1 UNKNOWN and more", "2.1", b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"),
        ("v2 LOCAL", "2.2", header(0, b"", command=0x20)),
        ("v2 LOCAL with addresses to skip", "2.2", header(_TCP4, block(FOUR), command=0x20)),
        ("v2 LOCAL with fields to skip", "2.2", header(0, tlv(0x04, bytes(9)), command=0x20)),
    ]:
        yield Case(name, section, Must.OWN, sent)
    yield Case("v2 of no family", "2.2", Must.OWN_OR_REFUSE, header(0, b""))
    yield Case("v2 of no family with bytes to skip", "2.2", Must.OWN_OR_REFUSE, header(0, bytes(9)))


def _no_lines() -> Iterator[Case]:
    right = line(FOUR)
    for name, sent in [
        ("v1 without its end", b"PROXY TCP4 192.0.2.33 198.51.100.7 40001 443 "),
        ("v1 ended by a line feed alone", right.replace(b"\r", b"")),
        ("v1 ended by a carriage return alone", right.replace(b"\n", b"")),
        ("v1 with two spaces", right.replace(b"TCP4 ", b"TCP4  ")),
        ("v1 with a tab", right.replace(b"TCP4 ", b"TCP4\t")),
        ("v1 with a space at the end", right.replace(b"\r", b" \r")),
        ("v1 in small letters", right.replace(b"PROXY", b"proxy")),
        ("v1 UDP4", right.replace(b"TCP4", b"UDP4")),
        ("v1 TCP4 with IPv6 addresses", line(SIX).replace(b"TCP6", b"TCP4")),
        ("v1 TCP6 with IPv4 addresses", right.replace(b"TCP4", b"TCP6")),
        ("v1 with port 65536", right.replace(b"40001", b"65536")),
        ("v1 with a signed port", right.replace(b"40001", b"+4001")),
        ("v1 with a zero before a port", right.replace(b"40001", b"04001")),
        ("v1 with a zero before a part", right.replace(b"192.0.2.33", b"192.0.2.033")),
        ("v1 with a part of 256", right.replace(b"192.0.2.33", b"192.0.2.256")),
        ("v1 with three parts", right.replace(b"192.0.2.33", b"192.0.33")),
        ("v1 with a field less", right.replace(b" 443", b"")),
        ("v1 with a field more", right.replace(b"443", b"443 1")),
        ("v1 with a name for an address", right.replace(b"192.0.2.33", b"nas.example")),
        ("v1 of 108 bytes", _UNKNOWN.replace(b"\r", b" " + b"x" * (LONGEST_LINE - len(_UNKNOWN)) + b"\r")),
    ]:
        yield Case(name, "2.1", Must.REFUSE, sent)


def _no_headers() -> Iterator[Case]:
    right = named(FOUR)
    for name, sent in [
        ("no header at all", b""),
        ("a signature with a wrong end", SIGNATURE[:-1] + b"\r" + right[len(SIGNATURE) :]),
        *[(f"v2 of version {version}", _told(right, 12, version << 4 | 1)) for version in (1, 3)],
        *[(f"v2 with command {command}", _told(right, 12, 0x20 | command)) for command in (2, 15)],
        *[(f"v2 of family {number}", header(number << 4 | STREAM, block(FOUR))) for number in (4, 15)],
        *[(f"v2 of protocol {number}", header(_TCP4 & 0xF0 | number, block(FOUR))) for number in (3, 15)],
        *[(f"v2 IPv4 of {size} bytes", header(_TCP4, block(FOUR)[:size])) for size in (0, 11)],
        *[(f"v2 IPv6 of {size} bytes", header(_TCP6, block(SIX)[:size])) for size in (0, 12, 35)],
        ("v2 of a UNIX socket, of 215 bytes", header(_UNIX, bytes(215))),
        ("v2 that ends before its length", header(_TCP4, block(FOUR), length=65_535)),
    ]:
        yield Case(name, "2.2", Must.REFUSE, sent)


def _no_fields() -> Iterator[Case]:
    for name, section, fields in [
        ("a field that ends after the header", "2.2", tlv(0x04, bytes(4))[:-1]),
        ("a field of one byte", "2.2", b"\x04"),
        ("a field of two bytes", "2.2", b"\x04\0"),
        ("CRC32C of three bytes", "2.2.3", tlv(0x03, bytes(3))),
        ("UNIQUE_ID of 129 bytes", "2.2.5", tlv(0x05, bytes(129))),
        ("SSL of four bytes", "2.2.6", tlv(0x20, bytes(4))),
        ("SSL with a field that ends after it", "2.2.6", tlv(0x20, bytes(5) + b"\x21\0\x09TLS")),
    ]:
        yield Case(name, section, Must.REFUSE_OR_SKIP, named(FOUR, fields), FOUR.client)
    yield Case("CRC32C that is wrong", "2.2.3", Must.REFUSE_OR_SKIP, summed(FOUR, change=1), FOUR.client)


def _told(right: bytes, at: int, byte: int) -> bytes:
    return right[:at] + bytes([byte]) + right[at + 1 :]


def _summed_first() -> bytes:
    """The checksum stands first, and covers what follows."""
    fields = tlv(0x02, b"nas.example") + tlv(0x04, b"")
    without = named(SIX, tlv(0x03, bytes(4)) + fields)
    at = len(without) - len(fields) - 4
    return without[:at] + crc32c(without).to_bytes(4) + without[at + 4 :]
