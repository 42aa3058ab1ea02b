"""A server at home sees who its client is, through two proxies and a mesh, and needs to know of neither.

    client -- internet -- vps-a, vps-b (edgeproxy, edge.toml) -- tailnet -- nas (edgeproxy, home.toml) -- its service

Two witnesses each: the client's own socket, and what the service sees; beside them the lines that both proxies write.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import threading

import pytest

from lab import Lab, wait_until
from scenarios.access_lines import EDGES, PATIENCE, at_an_edge, endpoint, joined, lines, the_line
from scenarios.database import DATABASE, postgres
from scenarios.quic_peers import ask_and_move, ask_by_quic

pytestmark = [pytest.mark.topology("homelab", scope="module"), pytest.mark.essential]

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
LOCAL = ["127.0.0.1", "[::1]", "nas.tailnet", "nas"]
OTHERS = 8000  # where home.toml leads what it does not know
HTTP = "GET / HTTP/1.0\r\nHost: {name}\r\n\r\n"
SPOOFED = "203.0.113.7"
V1 = f"PROXY TCP4 {SPOOFED} 192.0.2.1 4444 443\r\n".encode()
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + socket.inet_aton(SPOOFED)
    + socket.inet_aton("192.0.2.1")
    + b"\x11\x5c\x01\xbb"
)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_web_server_sees_the_clients_address_and_port(lab: Lab, scheme: str, version: int) -> None:
    name = f"{scheme}{version}.nas.example.net"
    own = ["--http2", "-w", "%{local_ip} %{local_port} %{http_version}"]
    answer = lab["stranger"].run(["curl", "-sS", f"-{version}", *own, f"{scheme}://{name}/"], check=True)
    page, _, local = answer.stdout.partition("\n")
    address, port, spoken = local.split()
    assert spoken == {"http": "1.1", "https": "2"}[scheme]  # nginx knows HTTP/2 under TLS only
    assert address == lab["stranger"].address(version=version)
    assert page == f"nas served {name} to {address}"
    lab["nas"].wait_log("web", f'{address} "{name}" "GET / ')
    (logged,) = (line for line in lab["nas"].log("web").splitlines() if f'"{name}"' in line)
    assert logged.endswith(f" 200 from port {port}")

    found = joined(lab, "nas", server_name=name)
    assert found.edge["client"] == found.home["client"] == endpoint(address, port)
    assert found.edge["peer"] == found.edge["client"]
    assert found.home["peer"].split(":")[0] in [lab[edge].address("tailnet") for edge in EDGES]
    assert found.home["original_dst"] == found.edge["original_dst"]  # which port was asked for: only the header tells
    assert found.home["target"] == endpoint(LOOPBACK[version], {"http": 80, "https": 443}[scheme])
    assert found.home["source"] == "client_endpoint"
    assert (found.home["bytes_in"], found.home["bytes_out"]) == (found.edge["bytes_in"], found.edge["bytes_out"])


def test_sshd_sees_a_client_with_its_own_public_address(lab: Lab) -> None:
    """By IPv6, for that is what the laptop at home has of public addresses; `nc -p` chooses its port."""
    by_port = ["-o", "ProxyCommand=nc -6 -p 20022 vps-a.example.net 2222"]
    answer = lab["laptop"].run(["ssh", *by_port, "vps-a.example.net", "hostname; echo $SSH_CONNECTION"], check=True)
    assert answer.stdout == f"nas\n{lab['laptop'].address('home', 6)} 20022 ::1 22\n"


def test_sshd_sees_the_nat_of_a_client_behind_one(lab: Lab) -> None:
    command = ["ssh", "-p", "2222", "vps-b.example.net", "hostname; echo $SSH_CONNECTION"]
    host, connection = lab["phone"].run(command, check=True).stdout.splitlines()
    address, port, at, ssh = connection.split()
    assert (host, at, ssh) == ("nas", "127.0.0.1", "22")
    assert address == lab["cafe"].address("internet")
    the_line(lab, "vps-b", client=f"{address}:{port}")


def test_sshd_sees_the_port_of_a_client_by_ipv4(lab: Lab) -> None:
    """It has no key there, so what sshd writes of it is all."""
    by_port = ["-o", "ProxyCommand=nc -4 -p 20023 vps-a.example.net 2222", "-o", "BatchMode=yes"]
    assert lab["stranger"].run(["ssh", *by_port, "vps-a.example.net", "hostname"]).returncode == 255
    lab["nas"].wait_log("ssh", f"{lab['stranger'].address()} port 20023")


@pytest.mark.parametrize("version", [4, 6])
def test_a_tls_client_of_openssl_is_seen(lab: Lab, version: int) -> None:
    own, edge = lab["stranger"].address(version=version), lab["vps-a"].address("internet", version)
    name = f"ossl{version}.pi.example.net"
    bound = ["-bind", endpoint(own, 21443), "-connect", endpoint(edge, 443), "-servername", name]
    verified = ["-verify_return_error", "-quiet", "-ign_eof"]
    request = HTTP.format(name=name)
    answer = lab["stranger"].run(["openssl", "s_client", *bound, *verified], input=request, check=True)
    assert f"pi served {name} to {own}\n" in answer.stdout
    assert joined(lab, "pi", server_name=name).home["client"] == endpoint(own, 21443)


@pytest.mark.parametrize("version", [4, 6])
def test_a_dns_server_sees_who_asks_by_tcp(lab: Lab, version: int) -> None:
    own, edge = lab["stranger"].address(version=version), lab["vps-a"].address("internet", version)
    at, log = LOOPBACK[version], f"/tmp/dns{version}.log"
    serve = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]
    there = [f"--port={OTHERS}", f"--listen-address={at}", "--bind-interfaces", "--pid-file="]
    told = ["--log-queries=extra", f"--log-facility={log}", "--address=/who.example/192.0.2.7"]
    with lab["nas"].start([*serve, *there, *told]):
        lab["nas"].wait_bound(OTHERS, "tcp", at)
        ask = ["dig", "+tcp", "+time=25", "+tries=1", "+short"]
        ask += ["-b", f"{own}#20053", f"@{edge}", "-p", "443", "who.example"]
        assert lab["stranger"].run(ask, check=True).stdout == "192.0.2.7\n"
        said = lab["nas"].read(log).decode()
    assert f"{own}/20053 query[A] who.example from {own}" in said


@pytest.mark.parametrize("version", [4, 6])
def test_a_database_sees_who_connects_by_psql(lab: Lab, version: int) -> None:
    """And lets in by address: who comes from another is refused by name of that."""
    edge, own = lab["vps-b"].address("internet", version), lab["stranger"].address(version=version)
    laptop, cafe = lab["laptop"].address("home", 6), lab["cafe"].address("internet")
    other, seen = ("laptop", laptop) if version == 6 else ("phone", cafe)
    words = ["psql", "--no-psqlrc", "-At", f"host={edge} port=2022 {DATABASE}"]
    with postgres(lab["nas"], LOOPBACK[version], OTHERS, let_in=own):
        with lab["stranger"].start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write("SELECT inet_client_addr(), inet_client_port();\n")
            client.stdin.flush()
            address, port = client.stdout.readline().strip().split("|")
            local = lab["stranger"].run(["ss", "-Htn", "dst", endpoint(edge, 2022)], check=True).stdout.split()[3]
            client.stdin.close()
            assert client.wait(PATIENCE) == 0
        refused = lab[other].run(words)
    assert address == own
    assert endpoint(address, port) == local
    assert f'no pg_hba.conf entry for host "{seen}"' in refused.stderr
    the_line(lab, "nas", client=local, rule="others")


@pytest.mark.parametrize("version", [4, 6])
def test_a_quic_server_sees_the_clients_address_and_port(lab: Lab, version: int) -> None:
    edge = lab["vps-a"].address("internet", version)
    answers, seen = ask_by_quic(lab, "nas", LOOPBACK[version], [("stranger", edge, f"quic{version}.nas.example.net")])
    ((local, answer),) = answers
    assert local == answer
    assert {f"{address} {port}" for address, port in seen} == {local}  # each datagram, not only the first


@pytest.mark.parametrize("version", [4, 6])
def test_a_quic_client_that_is_sent_back_with_a_token_and_moves_keeps_its_connection(lab: Lab, version: int) -> None:
    edge = lab["vps-a"].address("internet", version)
    question = "stranger", edge, f"moves{version}.nas.example.net"
    (local, answer), seen = ask_and_move(lab, "nas", LOOPBACK[version], question)
    assert local == answer
    assert {f"{address} {port}" for address, port in seen} == {local}, "the server knows nothing of its moves"


@pytest.mark.topology("homelab")
def test_both_proxies_write_one_line_of_a_quic_connection(lab: Lab) -> None:
    """A flow ends long after its last datagram; here because the proxies end.

    The shipped edge spares its datagrams the bytes of an identifier: client and destination join the lines.
    """
    edge = lab["vps-a"].address("internet")
    ((local, _),), _ = ask_by_quic(lab, "nas", "127.0.0.1", [("stranger", edge, "flow.nas.example.net")])
    lab.signal_service("vps-a", "edge", signal.SIGTERM)
    lab.signal_service("nas", "home", signal.SIGTERM)
    at_edge = the_line(lab, "vps-a", server_name="flow.nas.example.net", client=local.replace(" ", ":"))
    both = {key: at_edge[key] for key in ("client", "original_dst", "transport", "protocol", "bytes_in", "bytes_out")}
    assert (both["transport"], both["protocol"], both["original_dst"]) == ("udp", "quic", f"{edge}:443")
    at_home = the_line(lab, "nas", **both)
    assert (at_home["target"], at_home["source"]) == ("127.0.0.1:443", "client_endpoint")


def test_many_clients_at_once_are_not_mistaken_for_each_other(lab: Lab) -> None:
    """What each sends comes back as it was, from a server that took it for whom it is."""
    each = 20
    with lab["nas"].listen(OTHERS, "127.0.0.1") as server:
        serving = threading.Thread(target=_say_who_and_what, args=(server, 2 * each))
        serving.start()
        clients: list[socket.socket] = []
        try:
            for edge in EDGES * each:
                clients.append(lab["stranger"].connect((lab[edge].address("internet"), 443), PATIENCE))
                clients[-1].sendall(b"\xff" + os.urandom(16))  # nothing that a name could be in
            sent = {client: os.urandom(100_000) for client in clients}
            for client, data in sent.items():
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
            ports = [client.getsockname()[1] for client in clients]
            for client, data in sent.items():
                whom, _, digest = _all_of(client).partition(b" ")
                address, port = client.getsockname()
                # The kernel may give one port for connections to both edges; one of them is then seen by its address.
                is_alone = ports.count(port) == 1
                assert whom.decode() == endpoint(address, port) if is_alone else whom.startswith(address.encode())
                assert digest == hashlib.sha256(data).digest()
        finally:
            for client in clients:
                client.close()
        serving.join(2 * PATIENCE)
        assert not serving.is_alive()


def _say_who_and_what(server: socket.socket, clients: int) -> None:
    """To each client, once it has ended: its endpoint and the digest of all but its first 17 bytes."""
    server.settimeout(PATIENCE)
    accepted = [server.accept() for _ in range(clients)]
    for connection, peer in accepted:
        with connection:
            connection.settimeout(PATIENCE)
            connection.sendall(endpoint(*peer).encode() + b" " + hashlib.sha256(_all_of(connection)[17:]).digest())


def _all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("version", [4, 6])
def test_a_neighbour_at_home_is_seen_as_itself(lab: Lab, version: int) -> None:
    address, nas = lab["laptop"].address("home", version), lab["nas"].address("home", version)
    asked = ["curl", "-sS", "-w", "%{local_port}", "-H", f"Host: near{version}", f"http://{endpoint(nas, 4443)}/"]
    page, _, port = lab["laptop"].run(asked, check=True).stdout.partition("\n")
    assert page == f"nas served near{version} to {address}"
    line = the_line(lab, "nas", client=endpoint(address, port))
    assert (line["source"], line["header_in"]) == ("client_endpoint", "not_expected")


def test_a_member_in_the_mesh_is_seen_by_its_address_there(lab: Lab) -> None:
    asked = ["curl", "-sS", "-w", "%{local_port}", "http://nas.tailnet:4443/"]
    page, _, port = lab["phone"].run(asked, check=True).stdout.partition("\n")
    address = lab["phone"].address("tailnet")
    assert page == f"nas served nas.tailnet to {address}"
    line = the_line(lab, "nas", client=f"{address}:{port}")
    assert (line["source"], line["header_in"]) == ("client_endpoint", "absent")


@pytest.mark.parametrize("at", LOCAL)
def test_a_client_on_the_servers_own_host_is_served(lab: Lab, at: str) -> None:
    """Its address is the host's own, and answers to it would never come back to the proxy: it is not used."""
    name = f"to-{LOCAL.index(at)}.same-host"
    page = lab["nas"].run(["curl", "-sS", "-H", f"Host: {name}", f"http://{at}:4443/"], check=True).stdout
    assert page.split()[:4] == ["nas", "served", name, "to"]
    assert page.split()[-1] in LOOPBACK.values()
    assert the_line(lab, "nas", server_name=name)["source"] == "own"


def test_a_server_that_asks_for_its_own_public_name_is_served(lab: Lab) -> None:
    """Out of the house, to an edge, and back: the header says the host's own address."""
    name = "own-name.nas.example.net"
    page = lab["nas"].run(["curl", "-sS", "-6", f"https://{name}/"], check=True).stdout
    assert page == f"nas served {name} to ::1\n"
    home = joined(lab, "nas", server_name=name).home
    assert home["source"] == "own"
    assert home["client"].startswith(f"[{lab['nas'].address('home', 6)}]:")


@pytest.mark.parametrize(("header", "port"), [(V1, 20101), (V2, 20102)], ids=["v1", "v2"])
def test_who_is_not_trusted_cannot_say_who_it_is(lab: Lab, header: bytes, port: int) -> None:
    """Neither beside the proxy, nor through an edge, whose own header comes first: what a client writes is payload.

    Its line is found by its endpoint, with a port that the kernel has given to nobody before.
    """
    for node, to in (("laptop", (lab["nas"].address("home"), 4443)), ("stranger", (lab["vps-a"].address(), 443))):
        source = lab[node].address("home" if node == "laptop" else "internet"), port
        with (
            lab["nas"].listen(OTHERS, "127.0.0.1") as server,
            lab[node].connect(to, PATIENCE, source=source) as client,
        ):
            server.settimeout(PATIENCE)
            client.sendall(header + b"GET / HTTP/1.1\r\n\r\n")
            connection, peer = server.accept()
            with connection:
                connection.settimeout(PATIENCE)
                assert connection.recv(len(header), socket.MSG_WAITALL) == header
                assert peer == client.getsockname()
            own = endpoint(*client.getsockname()[:2])
        the_line(lab, "nas", client=own)
        if node == "stranger":
            at_an_edge(lab, client=own)
    for node in (*EDGES, "nas"):
        assert not [line for line in lines(lab, node) if SPOOFED in line["client"]]


@pytest.mark.topology("homelab")
def test_the_kernels_rules_go_with_the_proxy(lab: Lab) -> None:
    """Also when it is killed: nothing of it stays in the host's network."""

    def rules() -> str:
        found = lab["nas"].run(["sh", "-c", "ip -4 rule; ip -6 rule; ip -4 route show table all; nft list ruleset"])
        return found.stdout

    mark = "25968"  # also the number of the routing table
    assert mark in rules()
    (home,) = (each for each in lab.services() if (each["node"], each["service"]) == ("nas", "home"))
    lab["nas"].run(["kill", "-9", str(home["pid"])], check=True)
    wait_until(lambda: mark not in rules(), PATIENCE, "the rules are gone")
    lab.fault.restart("nas/home")
    wait_until(lambda: mark in rules(), PATIENCE, "the rules are back")
    page = lab["stranger"].run(["curl", "-sS", "-4", "https://back.nas.example.net/"], check=True).stdout
    assert page.split()[-1] == lab["stranger"].address()
