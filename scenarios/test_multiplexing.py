"""Many protocols on one port at home, many hosts behind one address at the edge, told apart by the first bytes.

    client -- internet -- vps-a, vps-b (edgeproxy, edge.toml) -- tailnet -- nas, pi (edgeproxy, home.toml) -- services

What is led astray is tested as well: a client chooses the name, and so it chooses where the edge goes.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Iterator

import pytest

from lab import Lab, wait_until
from scenarios.access_lines import PATIENCE, Line, at_an_edge, joined, lines
from scenarios.quic_peers import ask_by_quic

pytestmark = [pytest.mark.topology("homelab", scope="module"), pytest.mark.essential]

HOME = 4443
TERMINAL, OTHERS = 2022, 8000  # of home.toml
POSTGRES = b"\0\0\0\x08\x04\xd2\x16\x2f"  # "SSLRequest"
REDIS = b"*1\r\n$4\r\nPING\r\n"
ETERNAL_TERMINAL = b"\x14" + bytes(7) + b"\x0a\x10XXXabcdefghijklm\x10\x06"

EMPTY_REPLY, CUT_OFF, NOT_TLS = 52, 56, 35  # exit codes of curl


# One port at home.


def test_ssh_web_and_tls_share_one_port(lab: Lab) -> None:
    laptop = lab["laptop"]
    said = laptop.run(["ssh", "-p", f"{HOME}", "nas.tailnet", "hostname"], check=True)
    assert said.stdout == "nas\n"
    for scheme in ("http", "https"):
        page = laptop.run(["curl", "-sSk", f"{scheme}://nas.tailnet:{HOME}/{scheme}"], check=True)
        assert page.stdout.startswith("nas served nas.tailnet ")
        lab["nas"].wait_log("web", f'"GET /{scheme} HTTP')
    found = {line["protocol"]: line["rule"] for line in _of(lab, laptop.address("tailnet"), 3)}
    assert found == {"ssh": "ssh", "http1": "http", "tls": "tls"}


def test_http2_without_tls_is_known_by_its_preface(lab: Lab) -> None:
    """curl speaks it at once; nginx here does not, so what counts is where it is led."""
    lab["stranger"].run(["curl", "-sS", "--http2-prior-knowledge", "http://h2c.nas.example.net/"])
    found = joined(lab, "nas", server_name="h2c.nas.example.net")  # which the edge read out of the first HEADERS frame
    assert [line["protocol"] for line in (found.edge, found.home)] == ["http2", "http2"]
    assert found.home["rule"] == "http"


@pytest.mark.parametrize(("first", "port"), [(ETERNAL_TERMINAL, TERMINAL), (POSTGRES, OTHERS), (REDIS, OTHERS)])
def test_other_protocols_reach_their_servers(lab: Lab, first: bytes, port: int) -> None:
    edge = lab["vps-a"].address()
    with lab["nas"].listen(port, "127.0.0.1") as server, lab["phone"].connect((edge, 2022), PATIENCE) as client:
        server.settimeout(PATIENCE)
        client.sendall(first)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENCE)
            assert connection.recv(len(first), socket.MSG_WAITALL) == first
            connection.sendall(b"welcome")
            assert client.recv(7, socket.MSG_WAITALL) == b"welcome"


@pytest.mark.parametrize("way", ["home", "edge"])
def test_a_client_that_waits_for_the_server_gets_sshd(lab: Lab, way: str) -> None:
    node, address, port = {
        "home": ("laptop", lab["nas"].address("home"), HOME),
        "edge": ("stranger", lab["vps-b"].address(), 2222),
    }[way]
    words = ["nc", address, f"{port}"]
    with lab[node].start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as silent:
        assert silent.stdout is not None
        assert silent.stdout.readline().startswith("SSH-2.0-OpenSSH")


def test_a_hello_that_comes_byte_by_byte_is_read_whole(lab: Lab) -> None:
    name, edge = "slowly.pi.example.net", lab["vps-a"].address()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, to_send, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with lab["stranger"].connect((edge, 443), timeout=PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in to_send.read():
            client.sendall(bytes([byte]))
        assert client.recv(1) == b"\x16"  # a record of a handshake: the server's hello
    assert joined(lab, "pi", server_name=name).home["rule"] == "tls"


# Many hosts behind an edge.


@pytest.mark.parametrize(
    ("label", "host", "rule"), [("nas", "nas", "by name"), ("pi", "pi", "by name"), ("hub", "nas", "alias")]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_name_leads_to_the_host(lab: Lab, scheme: str, label: str, host: str, rule: str) -> None:
    """By SNI, and by the Host header where there is no TLS; `hub` is another name of nas."""
    name = f"{scheme}.{label}.example.net"
    page = lab["phone"].run(["curl", "-sS", f"{scheme}://{name}/"], check=True)
    assert page.stdout.startswith(f"{host} served {name} to ")
    found = joined(lab, host, server_name=name)
    assert (found.edge["rule"], found.edge["target"]) == (rule, f"{lab[host].address('tailnet')}:{HOME}")


def test_the_name_in_a_quic_hello_leads_to_the_host(lab: Lab) -> None:
    """Two hosts, one port of one edge, at the same time."""
    edge = lab["vps-b"].address()
    hosts = ("nas", "pi")
    for host in hosts:
        answers, seen = ask_by_quic(lab, host, "127.0.0.1", [("stranger", edge, f"quic.{host}.example.net")])
        assert {local for local, _ in answers} == {f"{address} {port}" for address, port in seen}


def test_who_names_nothing_is_led_to_the_default(lab: Lab) -> None:
    edge = lab["vps-a"].address()
    stranger = lab["stranger"]
    subject = stranger.run(["openssl", "s_client", "-noservername", "-connect", f"{edge}:443"], input="").stdout
    assert "subject=CN = nas.example.net" in subject.replace("CN=", "CN = ")
    page = stranger.run(["curl", "-sS", f"http://{edge}/"], check=True)  # an address is no name
    assert page.stdout.startswith(f"nas served {edge} to ")
    found = {protocol: at_an_edge(lab, rule="no name", protocol=protocol) for protocol in ("tls", "http1")}
    for line in found.values():
        assert "server_name" not in line
        assert line["backend"] == "nas"


# What a client may not choose.


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("ghost", "name_not_resolved"),
        ("localhost", "name_refused"),
        ("metadata", "target_forbidden"),
        ("loop", "self_loop"),  # its own 4443
        ("vps-a", "self_loop"),
        ("link", "target_forbidden"),
        ("stranger", "name_not_resolved"),
    ],
)
@pytest.mark.usefixtures("lying_dns")
def test_a_name_that_leads_astray_is_refused_with_its_reason(lab: Lab, scheme: str, label: str, reason: str) -> None:
    name, edge = f"{scheme}.{label}.example.net", lab["vps-a"].address()
    port = {"http": 80, "https": 443}[scheme]
    asked = ["curl", "-sSk", "--max-time", "15", "--resolve", f"{name}:{port}:{edge}", f"{scheme}://{name}/"]
    assert lab["stranger"].run(asked).returncode in (EMPTY_REPLY, CUT_OFF, NOT_TLS)
    line = at_an_edge(lab, server_name=name)
    assert (line["close"], line["rule"], line["bytes_out"]) == (reason, "by name", 0)
    assert "target" not in line


LIES = {"metadata": "169.254.169.254", "loop": "127.0.0.1", "link": "fe80::1"}


@pytest.fixture
def lying_dns(lab: Lab) -> Iterator[None]:
    """In place of the edges' DNS server another one that says what an attacker would have it say."""
    records = [f"--address=/{name}.tailnet/{address}" for name, address in LIES.items()]
    words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]
    lab.fault.kill("dns/dns")
    try:
        with lab["dns"].start([*words, "--pid-file=", *records]):
            lab["dns"].wait_bound(53, "udp")
            yield
    finally:
        lab.heal()


def test_an_edge_does_not_connect_to_itself(lab: Lab) -> None:
    """With the port that the client asked for, its own name would lead around for ever."""
    vps = lab["vps-a"]
    vps.run(["sh", "-c", "mkdir -p /run/looping; cat > /run/looping/edge.toml"], input=LOOPING, check=True)
    with vps.start(["edgeproxy", "run", "-c", "/run/looping/edge.toml"]):
        vps.wait_bound(8081)
        asked = ["curl", "-sS", "--max-time", "15", "-H", "Host: x.vps-a.example.net", f"http://{vps.address()}:8081/"]
        assert lab["stranger"].run(asked).returncode in (EMPTY_REPLY, CUT_OFF)
        wait_until(lambda: vps.read("/run/looping/access.log").endswith(b"\n"), PATIENCE, "it logs the connection")
        (line,) = (json.loads(line) for line in vps.read("/run/looping/access.log").decode().splitlines())
    assert line["close"] == "self_loop"


LOOPING = """
[listener.public]
tcp = ["0.0.0.0:8081"]

[[rule]]
server_name = '^(?:[^.]+\\.)*(?P<host>[^.]+)\\.[^.]+\\.[^.]+$'
to = "by-name"

[backend.by-name]
targets = ["$host.tailnet:$port"]
allow_suffixes = [".tailnet"]

[operation]
access_log = "/run/looping/access.log"
"""


def _of(lab: Lab, client: str, count: int) -> list[Line]:
    """The lines at home of a client that came without an edge, once there are so many."""

    def found() -> list[Line]:
        return [line for line in lines(lab, "nas") if line["client"].startswith(f"{client}:")]

    wait_until(lambda: len(found()) >= count, PATIENCE, f"{count} lines of {client}")
    return found()
