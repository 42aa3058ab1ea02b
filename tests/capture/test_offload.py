"""Large frames become the frames that a wire would have carried; scapy works out the sums again, independently."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from lab.capture.offload import Offload, checksum, network_offset, wire_frames

TCP_4, TCP_6, UDP_L4, ECN = 1, 4, 5, 0x80
IPV4 = IP(src="192.0.2.1", dst="192.0.2.2", id=0xFFFE, flags="DF")
IPV6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
NETWORKS = {"IPv4": IPV4, "IPv6": IPV6, "IPv6 with options": IPV6 / IPv6ExtHdrDestOpt()}
# Addresses are given throughout: scapy would ask the host's network for those that are not.
ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
LINKS = {"Ethernet": ETHERNET, "VLAN": ETHERNET / Dot1Q(vlan=7), "none": None}
EXAMPLES = settings(max_examples=30, deadline=None)


def header(*, needs_checksum: bool, kind: int, size: int, start: int, offset: int) -> bytes:
    """A virtio_net_hdr; its third field is only a hint."""
    return struct.pack("=BBHHHH", int(needs_checksum), kind, 0, size, start, offset)


def parsed(frame: bytes, link: Packet | None) -> Packet:
    if link is not None:
        return Ether(frame)
    return IP(frame) if frame[0] >> 4 == 4 else IPv6(frame)


def with_right_sums(packet: Packet) -> bytes:
    """The same packet, its lengths and checksums worked out by scapy."""
    copy = packet.copy()
    for layer, fields in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",)), (UDP, ("len", "chksum"))):
        if layer in copy:
            for field in fields:
                copy[layer].delfieldval(field)
    return bytes(copy)


def uncut(link: str, network: str, transport: Packet, payload: bytes) -> tuple[bytes, int, int]:
    """A frame as the kernel hands it to a card, and the offsets of its network and transport headers."""
    inner = NETWORKS[network] / transport / Raw(payload) if payload else NETWORKS[network] / transport
    packet = inner if LINKS[link] is None else LINKS[link] / inner
    frame = bytearray(bytes(packet))
    at = len(frame) - len(payload) - len(transport)
    frame[at + (16 if TCP in packet else 6) :][:2] = b"\xab\xcd"
    return bytes(frame), len(packet) - len(inner), at


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("needs_checksum", [True, False])
@EXAMPLES
@given(payload=st.binary(min_size=1, max_size=400), size=st.integers(1, 150), sequence=st.integers(0, 2**32 - 1))
def test_tcp_is_cut_into_segments_with_right_sums(
    *, link: str, network: str, needs_checksum: bool, payload: bytes, size: int, sequence: int
) -> None:
    transport = TCP(sport=1, dport=2, seq=sequence, flags="FPAC", options=[("Timestamp", (1, 2))])
    frame, at, start = uncut(link, network, transport, payload)
    kind = (TCP_4 if network == "IPv4" else TCP_6) | ECN
    offload = Offload.of(header(needs_checksum=needs_checksum, kind=kind, size=size, start=start, offset=16))
    made = wire_frames(frame, offload, at)
    segments = [parsed(each, LINKS[link]) for each in made]
    assert len(made) == -(-len(payload) // size)
    if len(made) == 1 and not needs_checksum:
        assert made == [frame]
        return
    if len(made) == 1:
        return  # its sum is finished from the partial one: see below
    assert made == [with_right_sums(segment) for segment in segments]
    assert b"".join(bytes(segment[TCP].payload) for segment in segments) == payload
    assert [segment[TCP].seq for segment in segments] == [(sequence + i * size) % 2**32 for i in range(len(made))]
    assert [str(segment[TCP].flags) for segment in segments] == ["AC", *["A"] * (len(made) - 2), "FPA"]
    if network == "IPv4":
        assert [segment[IP].id for segment in segments] == [(0xFFFE + i) % 2**16 for i in range(len(made))]


@pytest.mark.parametrize("network", NETWORKS)
@EXAMPLES
@given(payload=st.binary(min_size=2, max_size=400), size=st.integers(1, 150))
def test_udp_is_cut_into_datagrams_with_right_sums(network: str, payload: bytes, size: int) -> None:
    frame, at, start = uncut("Ethernet", network, UDP(sport=1, dport=2), payload)
    offload = Offload.of(header(needs_checksum=True, kind=UDP_L4, size=size, start=start, offset=6))
    made = wire_frames(frame, offload, at)
    if len(made) > 1:
        assert made == [with_right_sums(Ether(each)) for each in made]
    assert b"".join(bytes(Ether(each)[UDP].payload) for each in made) == payload
    assert max(len(Ether(each)[UDP].payload) for each in made) <= size


@EXAMPLES
@given(payload=st.binary(max_size=300), source=st.integers(0, 65535))
@pytest.mark.parametrize("transport", [TCP(dport=2), UDP(dport=2)], ids=["tcp", "udp"])
def test_a_checksum_that_was_left_out_is_finished(transport: Packet, payload: bytes, source: int) -> None:
    """The kernel leaves the sum of the pseudo header in the field (checksum-offloads.rst)."""
    transport = transport.copy()
    transport.sport = source
    whole = bytes(ETHERNET / IPV4 / transport / Raw(payload))
    offset, protocol = (16, 6) if TCP in transport else (6, 17)
    pseudo = IPV4.copy()
    length = len(whole) - 34
    covered = bytes(ETHERNET / pseudo)[26:34] + struct.pack("!HH", protocol, length)
    partial = bytearray(whole)
    partial[34 + offset : 36 + offset] = (0xFFFF - checksum(covered)).to_bytes(2)
    offload = Offload.of(header(needs_checksum=True, kind=0, size=0, start=34, offset=offset))
    assert wire_frames(bytes(partial), offload, 14) == [whole]


@EXAMPLES
@given(st.binary(max_size=80))
def test_the_checksum_is_that_of_the_rfc(data: bytes) -> None:
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0")) for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data) == 0xFFFF - total


@settings(max_examples=300, deadline=None)
@given(
    frame=st.binary(max_size=120),
    needs_checksum=st.booleans(),
    kind=st.sampled_from([0, TCP_4, TCP_6, UDP_L4, 3, 255]),
    size=st.integers(0, 9),
    start=st.integers(0, 100),
    offset=st.integers(0, 20),
    network=st.integers(0, 60),
)
def test_no_frame_however_odd_is_lost_or_raises(
    *, frame: bytes, needs_checksum: bool, kind: int, size: int, start: int, offset: int, network: int
) -> None:
    odd = header(needs_checksum=needs_checksum, kind=kind, size=size, start=start, offset=offset)
    made = wire_frames(frame, Offload.of(odd), network)
    assert made
    assert len(made) > 1 or len(made[0]) == len(frame)


def test_a_sum_that_is_no_internet_checksum_is_left_alone() -> None:
    frame = bytes(100)
    sctp = Offload.of(header(needs_checksum=True, kind=0, size=0, start=34, offset=8))
    assert wire_frames(frame, sctp, 14) == [frame]


def test_the_network_header_stands_behind_vlan_tags() -> None:
    assert network_offset(bytes(LINKS["Ethernet"] / IPV4)) == 14
    assert network_offset(bytes(LINKS["VLAN"] / IPV4)) == 18
    assert network_offset(bytes(LINKS["VLAN"] / Dot1Q() / IPV4)) == 22
    assert network_offset(b"short") >= 14
