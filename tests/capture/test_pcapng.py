"""Every field that is written comes out of decoders that are not ours."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.utils import PcapNgReader

from lab.capture import pcapng

FRAME = bytes.fromhex("020000000002 020000000001 88b5") + b"a frame of our own".ljust(46)
IPV4_FRAME = bytes.fromhex("4500001c00000000401100000a0000010a00000200010002 0008 0000")
TIME = 1_700_000_000_123_456_789
Decode = Callable[..., list[list[str]]]

HOME = pcapng.Interface(
    name="nas:home",
    description="network home",
    mac=bytes.fromhex("020000000001"),
    addresses=(ip_interface("192.0.2.7/24"), ip_interface("2001:db8::7/64")),
    snaplen=96,
    filter="tcp port 443",
)
TUNNEL = pcapng.Interface(name="nas:mesh", link_type=pcapng.RAW)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two interfaces, three packets, statistics."""
    packets = [
        pcapng.enhanced_packet(0, TIME, FRAME, len(FRAME), pcapng.INBOUND | pcapng.UNICAST),
        pcapng.enhanced_packet(1, TIME + 1, IPV4_FRAME, len(IPV4_FRAME), pcapng.OUTBOUND),
        pcapng.enhanced_packet(0, TIME + 2, FRAME[:31], len(FRAME), pcapng.INBOUND | pcapng.BROADCAST),
    ]
    blocks = [
        pcapng.section_header("hardware-1", "system-2", "application-3", "comment-4"),
        pcapng.interface_description(HOME),
        pcapng.interface_description(TUNNEL),
        pcapng.name_resolution({IPv4Address("10.0.0.1"): "phone", IPv6Address("2001:db8::7"): "nas"}),
        *packets,
        pcapng.interface_statistics(0, pcapng.Statistics(TIME, TIME + 2, received=9, dropped=4, written=2)),
    ]
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"".join(blocks))
    return path


def test_the_head_is_read_by_capinfos(file: Path, about: Callable[[Path], str]) -> None:
    said = re.sub(" +", " ", about(file))
    for line in (
        "Capture hardware: hardware-1",
        "Capture oper-sys: system-2",
        "Capture application: application-3",
        "Capture comment: comment-4",
        "Number of interfaces in file: 2",
        "Name = nas:home",
        "Description = network home",
        "Encapsulation = Ethernet (1 - ether)",
        "Encapsulation = Raw IP (7 - rawip)",
        "Capture length = 96",
        "Time precision = nanoseconds (9)",
        "Filter string = tcp port 443",
        "Number of stat entries = 1",
        "Number of packets: 3",
    ):
        assert line in said, said


def test_each_packet_has_its_interface_time_direction_and_lengths(file: Path, decode: Decode) -> None:
    fields = ("frame.interface_name", "frame.time_epoch", "frame.packet_flags_direction", "frame.cap_len", "frame.len")
    assert decode(file, *fields) == [
        ["nas:home", "1700000000.123456789", "0x00000001", "60", "60"],
        ["nas:mesh", "1700000000.123456790", "0x00000002", "28", "28"],
        ["nas:home", "1700000000.123456791", "0x00000001", "31", "60"],
    ]
    assert [row[0] for row in decode(file, "frame.packet_flags_reception_type")] == ["1", "0", "3"]


def test_addresses_get_the_names_of_their_nodes(file: Path) -> None:
    shown = subprocess.run(["tshark", "-N", "n", "-r", file], capture_output=True, text=True, check=True).stdout
    assert "phone" in shown


def test_scapy_reads_the_same_frames(file: Path) -> None:
    with PcapNgReader(str(file)) as reader:
        packets = list(reader)
    assert [bytes(packet) for packet in packets] == [FRAME, IPV4_FRAME, FRAME[:31]]
    assert [packet.sniffed_on for packet in packets] == ["nas:home", "nas:mesh", "nas:home"]


@settings(deadline=None)
@given(frame=st.binary(max_size=100), more=st.integers(0, 100), time=st.integers(0, 2**63 - 1))
def test_a_packet_block_is_as_long_as_it_says_at_both_ends(frame: bytes, more: int, time: int) -> None:
    block = pcapng.enhanced_packet(3, time, frame, len(frame) + more, pcapng.INBOUND)
    assert len(block) % 4 == 0
    assert int.from_bytes(block[4:8], "little") == int.from_bytes(block[-4:], "little") == len(block)
    assert block[28 : 28 + len(frame)] == frame


def test_statistics_are_where_the_specification_has_them(file: Path) -> None:
    """Code and length of each option (isb_ifrecv 4, isb_ifdrop 5, isb_osdrop 7, isb_usrdeliv 8), 64 bits each."""
    block = file.read_bytes()[-int.from_bytes(file.read_bytes()[-4:], "little") :]
    assert block[:4] == b"\5\0\0\0"
    for code, value in ((4, 9), (5, 4), (7, 4), (8, 2)):
        assert bytes([code, 0, 8, 0]) + value.to_bytes(8, "little") in block
