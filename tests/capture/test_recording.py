"""Captures of a real lab, decoded by tshark and by scapy."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import HostError, UsageError
from lab.realise.asking import wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

Decode = Callable[..., list[list[str]]]
UDP_SEGMENT = 103  # linux/udp.h
SOL_UDP = 17
TUNNEL_READER = """
import fcntl, os, struct
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tunnel", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
print("ready", flush=True)
while os.read(tun, 2000)[0] >> 4 != 4:
    pass
print("read", flush=True)
"""
LARGE = 300_000  # bytes, many frames beyond the MTU


def transfer(lab: Lab, size: int, address: str = "192.0.2.2") -> None:
    """Send bytes by TCP from phone to nas; all have come when it returns."""
    with lab["nas"].listen(80, address) as server, lab["phone"].connect((address, 80)) as client:
        accepted, _ = server.accept()
        with accepted:
            client.sendall(bytes(size))
            client.shutdown(socket.SHUT_WR)
            while accepted.recv(1 << 16):
                pass


@pytest.mark.parametrize(("address", "ip"), [("192.0.2.2", "ip"), ("2001:db8:1::2", "ipv6")])
def test_frames_are_as_a_wire_would_have_carried_them(
    lab: Lab, tmp_path: Path, decode: Decode, address: str, ip: str
) -> None:
    file = tmp_path / "a.pcapng"
    with lab["nas"].packet("lan") as uncut, lab.capture("phone:lan", "nas:lan", to=file):
        transfer(lab, LARGE, address)
        uncut.settimeout(0)
        sizes = []
        while True:
            try:
                sizes.append(len(uncut.recv(1 << 17)))
            except BlockingIOError:
                break
    assert max(sizes) > 1514, "the kernel did send frames beyond the MTU"
    wanted = ("frame.interface_name", "frame.len", "tcp.len", "tcp.checksum.status", "tcp.seq")
    rows = decode(file, *wanted, where=f"tcp and {ip}")
    assert {row[3] for row in rows} == {"1"}  # good
    assert max(int(row[1]) for row in rows) == 1514
    for interface in ("phone:lan", "nas:lan"):
        # Each byte at least once: a busy machine retransmits.
        sent = {int(row[4]) + each for row in rows if row[0] == interface for each in range(int(row[2]))}
        assert len(sent) == LARGE
    assert decode(file, "frame.number", where="_ws.expert.severity == error") == []


def test_datagrams_that_are_sent_as_one_are_captured_as_many(lab: Lab, tmp_path: Path, decode: Decode) -> None:
    """UDP_SEGMENT (udp(7))."""
    file = tmp_path / "a.pcapng"
    with lab["nas"].udp(5000) as far, lab["phone"].udp(5001) as near, lab.capture("phone:lan", to=file):
        near.setsockopt(SOL_UDP, UDP_SEGMENT, 1000)
        near.sendto(bytes(range(256)) * 10, ("192.0.2.2", 5000))
        assert sum(len(far.recv(3000)) for _ in range(3)) == 2560
    assert decode(file, "udp.length", "udp.checksum.status", where="udp.port == 5000") == [
        ["1008", "1"],
        ["1008", "1"],
        ["568", "1"],
    ]


def test_both_sides_of_a_link_are_in_one_file_in_the_order_of_time(lab: Lab, tmp_path: Path, decode: Decode) -> None:
    file = tmp_path / "a.pcapng"
    with lab.capture("lan", to=file) as capture:
        for _ in range(20):
            lab["phone"].run(["ping", "-c1", "-W20", "192.0.2.2"], check=True)
    assert capture.interfaces == ("phone:lan", "nas:lan")
    rows = decode(file, "frame.interface_name", "icmp.type", "frame.packet_flags_direction", where="icmp")
    sent, received = "0x00000002", "0x00000001"
    assert rows == 20 * [
        ["phone:lan", "8", sent],
        ["nas:lan", "8", received],
        ["nas:lan", "0", sent],
        ["phone:lan", "0", received],
    ]
    times = [float(row[0]) for row in decode(file, "frame.time_epoch")]
    assert times == sorted(times)


def test_the_file_says_where_it_is_from(lab: Lab, tmp_path: Path, about: Callable[[Path], str]) -> None:
    file = tmp_path / "a.pcapng"
    with lab.capture("nas", to=file, filter="udp port 7", snaplen=100):
        pass
    said = re.sub(" +", " ", about(file))
    assert f"Capture comment: lab {lab.name}" in said
    assert "Name = nas:lan" in said
    assert "Name = nas:dmz" in said
    assert "Description = network dmz" in said
    assert "Capture length = 100" in said
    assert said.count("Filter string = udp port 7") == 2
    assert said.count("Number of stat entries = 1") == 2


def test_what_came_before_the_end_is_in_the_file_and_what_comes_after_is_not(lab: Lab) -> None:
    with lab["nas"].udp(5000) as far, lab["phone"].udp() as near:
        with lab.capture("nas:lan", filter="udp port 5000") as capture:
            for number in range(100):
                near.sendto(b"%d" % number, ("192.0.2.2", 5000))
            for _ in range(100):
                far.recv(100)
        near.sendto(b"late", ("192.0.2.2", 5000))
        assert far.recv(100) == b"late"
    # In any order: the kernel may move a sender to a processor that is ahead of the one before.
    assert sorted(int(bytes(packet["Raw"].load)) for packet in capture.packets()) == list(range(100))
    assert [(count.name, count.packets, count.dropped) for count in capture.counts] == [("nas:lan", 100, 0)]
    assert capture.dropped == 0
    assert all(packet.sniffed_on == "nas:lan" for packet in capture.packets())


def test_a_filter_may_name_nodes_and_is_applied(lab: Lab) -> None:
    with lab.capture("nas:dmz", filter="icmp and src host web") as capture:
        lab["nas"].run(["ping", "-c1", "-W20", "web"], check=True)
    assert [packet["ICMP"].type for packet in capture.packets()] == [0]


def test_packets_are_cut_to_the_snaplen(lab: Lab, tmp_path: Path, decode: Decode) -> None:
    file = tmp_path / "a.pcapng"
    with lab.capture("phone:lan", to=file, snaplen=60):
        transfer(lab, 20_000)
    rows = decode(file, "frame.cap_len", "frame.len", where="tcp")
    assert max(int(row[0]) for row in rows) == 60
    assert max(int(row[1]) for row in rows) == 1514


def test_without_a_file_the_latest_packets_are_kept(lab: Lab, tmp_path: Path, decode: Decode) -> None:
    capture = lab.capture("phone:lan", filter="udp port 5000", keep=40_000)
    with lab["nas"].udp(5000) as far, lab["phone"].udp() as near, capture:
        for number in range(200):
            near.sendto(b"%04d" % number + bytes(996), ("192.0.2.2", 5000))
            far.recv(2000)
    file = capture.save(tmp_path / "a.pcapng")
    assert 20_000 <= file.stat().st_size <= 42_000
    numbers = [int(bytes.fromhex(row[0])[:4]) for row in decode(file, "data.data", where="udp")]
    assert numbers == list(range(200 - len(numbers), 200))
    assert len(numbers) >= 17
    capture.close()


def test_the_loopback_shows_each_packet_once(lab: Lab) -> None:
    with lab.capture("nas:lo", filter="icmp") as capture:
        for _ in range(2):
            lab["nas"].run(["ping", "-c1", "-W20", "127.0.0.1"], check=True)
    assert [packet["ICMP"].type for packet in capture.packets()] == [8, 0, 8, 0]


@pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="this user may not open /dev/net/tun")
def test_frames_without_a_link_header_are_raw_ip(lab: Lab, tmp_path: Path, decode: Decode) -> None:
    """A tunnel that the topology does not know; what is sent into it never needs a reader."""
    web = lab["web"]
    web.run(["ip", "tuntap", "add", "dev", "tunnel", "mode", "tun"], check=True)
    file = tmp_path / "a.pcapng"
    with web.start(["python3", "-c", TUNNEL_READER], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        # After the reader, which is its carrier: an interface that is up before has its queue opened some time later.
        for words in (["addr", "add", "192.0.2.129/25", "dev", "tunnel"], ["link", "set", "tunnel", "up"]):
            web.run(["ip", *words], check=True)
        with lab.capture("web:tunnel", to=file, filter="udp"), web.udp() as near:
            near.sendto(b"inside", ("192.0.2.200", 9))
            assert reader.stdout.readline() == "read\n"
    assert decode(file, "frame.interface_name", "ip.dst", "udp.checksum.status") == [["web:tunnel", "192.0.2.200", "1"]]


def test_a_tag_of_a_vlan_is_in_the_frame(lab: Lab) -> None:
    tagged = bytes.fromhex("ffffffffffff 020000000001 8100 0007 88b5") + b"tagged".ljust(46)
    with lab["phone"].packet("lan") as near, lab["nas"].packet("lan") as far, lab.capture("nas:lan") as capture:
        near.send(tagged)
        while b"tagged" not in far.recv(2000):
            pass
    assert tagged in [bytes(packet) for packet in capture.packets()]


@pytest.mark.alone  # it fills the queue that the packets of all labs wait in (net.core.netdev_max_backlog)
def test_a_burst_that_does_not_fit_is_counted(lab: Lab, tmp_path: Path) -> None:
    """The process that records is held up, so that the ring must run full."""
    file = tmp_path / "a.pcapng"
    frame = bytes.fromhex("020000000002 020000000001 88b5") + bytes(1486)
    sent = 20_000  # 30 MB; a ring has 16
    with lab["phone"].packet("lan") as near, lab.capture("phone:lan", to=file) as capture:
        wait_until(lambda: file.stat().st_size, 30, "the recording process runs")
        os.kill(capture._process.pid, signal.SIGSTOP)
        for _ in range(sent):
            near.send(frame)
        os.kill(capture._process.pid, signal.SIGCONT)
    (count,) = capture.counts
    assert count.packets >= 5_000
    assert count.dropped >= 1_000
    assert sent <= count.packets + count.dropped <= sent + 50
    assert capture.dropped == count.dropped


def test_a_capture_that_runs_has_no_packets_yet(lab: Lab) -> None:
    with lab.capture("nas:lan") as capture:
        with pytest.raises(UsageError, match="still runs"):
            capture.packets()
        with pytest.raises(UsageError, match="still runs"):
            _ = capture.dropped
    assert capture.dropped == 0


def test_a_process_that_dies_is_an_error(lab: Lab) -> None:
    capture = lab.capture("nas:lan")
    capture._process.kill()
    with pytest.raises(Exception, match="the process that captured failed"):
        capture.stop()
    capture.close()


def test_a_full_disk_ends_it_with_whole_packets(lab: Lab, tmp_path: Path, decode: Decode) -> None:
    file = tmp_path / "a.pcapng"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        capture = lab.capture("phone:lan", to=file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    transfer(lab, LARGE)
    with pytest.raises(OSError, match="File too large; what came before is in the file, whole"):
        capture.stop()
    assert 90_000 < file.stat().st_size <= 100_000
    assert len(decode(file, "frame.number")) > 50


def test_when_both_fail_the_error_of_the_block_is_the_one_raised(lab: Lab) -> None:
    capture = lab.capture("nas:lan")
    capture._process.kill()
    with pytest.raises(ZeroDivisionError) as caught, capture:
        _ = 1 / 0
    assert "and the capture failed: the process that captured failed" in caught.value.__notes__[0]


def test_a_starter_that_is_killed_leaves_a_whole_file_and_no_process(lab: Lab, tmp_path: Path, decode: Decode) -> None:
    file = tmp_path / "a.pcapng"
    script = (
        "import os, signal, sys\nfrom lab import Lab\n"
        "capture = Lab(sys.argv[1]).capture('nas:lan', to=sys.argv[2], filter='icmp')\n"
        "print(capture._process.pid, flush=True)\nsys.stdin.read()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, lab.name, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        recording = os.pidfd_open(int(starter.stdout.readline()))
        lab["phone"].run(["ping", "-c1", "-W20", "192.0.2.2"], check=True)
        starter.communicate()
    poll = select.poll()
    poll.register(recording, select.POLLIN)
    assert poll.poll(60_000), "the process that records has ended"
    os.close(recording)
    assert [row[0] for row in decode(file, "icmp.type")] == ["8", "0"]


def test_a_link_that_goes_down_and_up_is_captured_on(lab: Lab) -> None:
    with lab.capture("nas:dmz", filter="icmp") as capture:
        lab["web"].run(["ip", "link", "set", "dmz", "down"], check=True)
        lab["web"].run(["ip", "link", "set", "dmz", "up"], check=True)
        lab["nas"].run(["ip", "link", "set", "dmz", "down"], check=True)
        lab["nas"].run(["ip", "link", "set", "dmz", "up"], check=True)
        # A link that has just come up may lose the first.
        lab["web"].run(["ping", "-c1", "-w30", "198.51.100.2"], check=True)
    assert [packet["ICMP"].type for packet in capture.packets()][-2:] == [8, 0]


@pytest.mark.parametrize(
    ("targets", "options", "text"),
    [
        (["nsa"], {}, "did you mean 'nas'"),
        (["nas:lam"], {}, "did you mean 'lan'"),
        (["nas"], {"filter": "tcp prt 80"}, r"filter 'tcp prt 80': .*syntax error"),
        (["nas"], {"filter": "-r /etc/passwd"}, "filter '-r /etc/passwd'"),
        (["nas"], {"snaplen": -1}, "snaplen -1"),
        (["nas"], {"keep": 0}, "keep 0"),
        (["nas"], {"to": "/nonexistent/a.pcapng"}, "there is no folder /nonexistent"),
    ],
)
def test_wrong_input_is_told_before_anything_is_written(
    lab: Lab, targets: list[str], options: dict[str, object], text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        lab.capture(*targets, **options)  # type: ignore[arg-type]


def test_a_missing_tcpdump_is_told_with_how_to_mend_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match=r"a filter needs tcpdump.*apt-get install tcpdump"):
        lab.capture("nas", filter="icmp")
