"""Packets: what is written can be read, by scapy too; what is cut short is no packet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, ICMPerror, UDPerror

from lab.certify import packet as packets
from lab.certify.fragments import cut
from lab.certify.packet import ACK, ECHO_REQUEST, MORE_FRAGMENTS, SYN, UNREACHABLE, Packet, Segment

NEAR, FAR = ("192.0.2.1", 1234), ("198.51.100.7", 443)


def checked(raw: bytes) -> IP:
    """As scapy reads it, once it has found the same checksums."""
    read = IP(raw)
    again = read.copy()
    for layer in (again, again.payload):
        del layer.chksum
    assert bytes(IP(bytes(again))) == raw
    return read


@given(st.binary(max_size=200))
def test_a_datagram_is_what_scapy_reads(data: bytes) -> None:
    read = checked(packets.datagram(NEAR, FAR, data).encoded())
    assert (read.src, read[UDP].sport, read.dst, read[UDP].dport) == (*NEAR, *FAR)
    assert bytes(read[UDP].payload) == data


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=50))
def test_a_segment_is_what_scapy_and_we_read(sequence: int, acknowledgement: int, data: bytes) -> None:
    written = Segment(NEAR, FAR, sequence, acknowledgement, SYN | ACK, data)
    raw = written.packet().encoded()
    read = checked(raw)[TCP]
    assert (read.seq, read.ack, str(read.flags)) == (sequence, acknowledgement, "SA")
    again = packets.decoded(raw)
    assert again is not None
    assert packets.segment(again) == written


def test_options_of_a_segment_are_not_its_data() -> None:
    raw = bytes(IP(src=NEAR[0], dst=FAR[0]) / TCP(sport=1, dport=2, options=[("MSS", 1460)]) / b"data")
    packet = packets.decoded(raw)
    assert packet is not None
    segment = packets.segment(packet)
    assert segment is not None
    assert segment.data == b"data"


def test_an_error_quotes_what_it_is_about() -> None:
    about = packets.datagram(NEAR, FAR, b"x" * 100)
    message = Packet(FAR[0], NEAR[0], packets.ICMP, packets.error(UNREACHABLE, 4, about, 1280))
    read = checked(message.encoded())
    assert (read[ICMP].type, read[ICMP].code, read[ICMP].nexthopmtu) == (3, 4, 1280)
    assert (read[ICMPerror if UDPerror not in read else UDPerror].sport) == NEAR[1]
    inner = packets.quoted(message)
    assert inner is not None
    assert (inner.source, inner.destination, packets.ports(inner)) == (NEAR[0], FAR[0], (NEAR[1], FAR[1]))


def test_an_error_with_a_wrong_checksum_or_an_echo_quotes_nothing() -> None:
    about = packets.datagram(NEAR, FAR, b"x")
    good = packets.error(UNREACHABLE, 3, about)
    assert packets.quoted(Packet(FAR[0], NEAR[0], packets.ICMP, good)) is not None
    bad = good[:-1] + bytes([good[-1] ^ 1])
    assert packets.quoted(Packet(FAR[0], NEAR[0], packets.ICMP, bad)) is None
    echo = packets.echo(ECHO_REQUEST, 7, 1, about.encoded())
    assert packets.quoted(Packet(FAR[0], NEAR[0], packets.ICMP, echo)) is None


@given(st.binary(max_size=80))
def test_any_bytes_can_be_looked_at(raw: bytes) -> None:
    packet = packets.decoded(raw)
    if packet is not None:
        packets.segment(packet)
        packets.ports(packet)
        packets.quoted(packet)


def test_every_cut_of_a_packet_is_none_or_shorter() -> None:
    raw = Segment(NEAR, FAR, 1, 2, SYN, b"data").packet().encoded()
    for end in range(20):
        assert packets.decoded(raw[:end]) is None
    for end in range(20, 40):
        packet = packets.decoded(raw[:end])
        assert packet is not None
        assert packets.segment(packet) is None


def test_what_the_link_appends_is_cut_off() -> None:
    packet = packets.decoded(packets.datagram(NEAR, FAR, b"ab").encoded() + bytes(16))
    assert packet is not None
    assert packet.payload.endswith(b"ab")


@pytest.mark.parametrize("length", [1, 1192, 1193, 5000])
def test_fragments_add_up_to_the_whole(length: int) -> None:
    whole = packets.datagram(NEAR, FAR, bytes(length))
    pieces = cut(whole, 7)
    assert b"".join(piece.payload for piece in pieces) == whole.payload
    assert [piece.fragment & 0x1FFF for piece in pieces] == [index * 150 for index in range(len(pieces))]
    assert [bool(piece.fragment & MORE_FRAGMENTS) for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert {piece.identification for piece in pieces} == {7}
