"""The configurations before the real programs: they must be taken, and mean what was meant."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from lab.errors import TopologyError
from lab.topology.load import load_topology
from lab.topology.model import Protocol, ReadyPort, Service
from lab.topology.services import edgeproxy, nginx

# An address that no other run of tests has, and a port that the kernel gives to nobody who does not name it.
RESOLVER = f"127.53.{os.getpid() >> 8 & 0xFF}.{os.getpid() & 0xFF}"
RESOLVER_PORT = 10053
PATIENCE = 30.0  # seconds

TOPOLOGY = f"""
networks: {{lan: {{prefixes: [10.0.0.0/24, "2001:db8::/64"]}}}}
nodes:
  dual: {{links: {{lan: 10.0.0.10}}}}
  a:
    links: {{lan: auto}}
    services:
      ssh: {{use: sshd, port: 2222}}
      web: {{use: nginx, config: nginx.conf}}
      edge: {{use: edgeproxy, config: edge.toml}}
      dns:
        use: dnsmasq
        listen: [{RESOLVER}]
        records:
          "*.nas.example.net": [192.0.2.1]
          "*.two.example.net": [192.0.2.1, 192.0.2.2]
          four.example.net: 192.0.2.4
          dual.example.net: dual
"""
NGINX = """
events {}
http {
    server { listen 127.0.0.1:8443; } # listen 1;
    # listen 2;
    server { listen [::1]:8444; listen 8445 default_server; listen unix:/run/x.sock; listen *:8446; }
}
stream { server { listen 8448 udp; return ""; } }
"""
EDGEPROXY = """
[listener.public]
tcp = ["{{ node.address.lan }}:443", "[::]:8000-8002", "127.0.0.1:1"]
udp = ["0.0.0.0:443", "[::1]:2"]
[listener.other]
tcp = ["[{{ node.address6.lan }}]:8443"]
[[rule]]
to = "web"
[backend.web]
targets = ["127.0.0.1:80"]
"""
SHIPPED = sorted((Path(__file__).parents[2] / "proxy" / "examples").glob("*.toml"))


def service(folder: Path, name: str) -> Service:
    (folder / "nginx.conf").write_text(NGINX)
    (folder / "edge.toml").write_text(EDGEPROXY)
    (folder / "t.yaml").write_text(TOPOLOGY)
    found = next(each for each in load_topology(folder / "t.yaml").nodes[1].services if each.name == name)
    for file in found.files:
        (folder / file.path).write_text(file.text)
    return found


def program(name: str) -> str:
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        pytest.skip(f"no {name} on this host")
    return path


def test_sshd_takes_its_configuration(tmp_path: Path) -> None:
    service(tmp_path, "ssh")
    key = tmp_path / "key"
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    # A /run of its own, as a node has one: sshd wants /run/sshd there.
    script = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$0" -T -h "$1" -f "$2"'
    own_run = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    command = [*own_run, program("sshd"), str(key), str(tmp_path / "sshd_config")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    for setting in (
        "port 2222",
        "permitrootlogin without-password",
        "passwordauthentication no",
        "gatewayports clientspecified",
        "usedns no",
        "pidfile none",
        "authorizedkeysfile /run/lab/ssh/authorized_keys",
    ):
        assert setting in told.stdout.lower().splitlines()


@pytest.fixture
def dnsmasq(tmp_path: Path) -> Iterator[None]:
    """A dnsmasq that runs with the generated configuration, as this user and beside port 53."""
    service(tmp_path, "dns")
    config = tmp_path / "dnsmasq.conf"
    command = [
        program("dnsmasq"),
        "--keep-in-foreground",
        f"--conf-file={config}",
        "--log-facility=-",
        f"--port={RESOLVER_PORT}",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as running:
        try:
            wait_for_answer(running)
            yield
        finally:
            running.terminate()


def wait_for_answer(running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert running.poll() is None, running.stderr.read() if running.stderr else ""
        try:
            ask("four.example.net", "A")
        except AssertionError:
            assert time.monotonic() < deadline, "dnsmasq does not answer"
        else:
            return


def ask(name: str, kind: str) -> tuple[str, set[str]]:
    """Status and answers, by dig."""
    command = [program("dig"), f"@{RESOLVER}", "-p", str(RESOLVER_PORT), "+tries=3", "+time=5", name, kind]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
    status = told.stdout.split("status: ")[1].split(",")[0]
    lines = [line.split() for line in told.stdout.splitlines() if line and not line.startswith(";")]
    return status, {words[-1] for words in lines}


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("git.nas.example.net", "A", {"192.0.2.1"}),
        ("nas.example.net", "A", {"192.0.2.1"}),
        ("git.nas.example.net", "AAAA", set()),
        ("four.example.net", "A", {"192.0.2.4"}),
        ("four.example.net", "AAAA", set()),
        ("dual.example.net", "A", {"10.0.0.10"}),
        ("dual.example.net", "AAAA", {"2001:db8::10"}),
        ("x.two.example.net", "A", {"192.0.2.1", "192.0.2.2"}),
    ],
)
@pytest.mark.usefixtures("dnsmasq")
def test_dnsmasq_answers_its_records(name: str, kind: str, answer: set[str]) -> None:
    assert ask(name, kind) == ("NOERROR", answer)


@pytest.mark.usefixtures("dnsmasq")
def test_dnsmasq_knows_nothing_else() -> None:
    assert ask("example.com", "A") == ("REFUSED", set())
    assert ask("localhost", "A")[1] == set()  # the host's hosts file


def test_nginx_listens_are_found() -> None:
    found = [(protocol, str(address) if address else None, port) for protocol, address, port in nginx.listening(NGINX)]
    assert found == [
        (Protocol.TCP, "127.0.0.1", 8443),
        (Protocol.TCP, "::1", 8444),
        (Protocol.TCP, None, 8445),
        (Protocol.TCP, None, 8446),
        (Protocol.UDP, None, 8448),
    ]


def test_nginx_ports_leave_out_loopback(tmp_path: Path) -> None:
    found = [(port.protocol, port.number) for port in service(tmp_path, "web").ports]
    assert found == [(Protocol.TCP, 8445), (Protocol.TCP, 8446), (Protocol.UDP, 8448)]


def check(folder: Path) -> str:
    """What `edgeproxy check` says of the service's file."""
    beside = Path(sys.executable).parent / "edgeproxy"
    command = [os.environ.get("EDGEPROXY", str(beside)), "check", "-c", "edgeproxy.toml"]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_edgeproxy_takes_its_configuration(tmp_path: Path) -> None:
    command = service(tmp_path, "edge").argv
    assert command == ("edgeproxy", "run", "-c", "edgeproxy.toml")
    assert check(tmp_path) == "edgeproxy.toml: 2 listeners, 1 rule, 1 backend\n"


def test_edgeproxy_serves_the_ports_of_its_listeners_that_are_not_on_loopback(tmp_path: Path) -> None:
    edge = service(tmp_path, "edge")
    tcp = [(Protocol.TCP, number) for number in (443, 8000, 8001, 8002)]
    found = [(port.protocol, port.number) for port in edge.ports]
    assert found == [*tcp, (Protocol.UDP, 443), (Protocol.TCP, 8443)]
    assert isinstance(edge.ready, ReadyPort)
    assert (edge.ready.port, str(edge.ready.address)) == (8443, "2001:db8::1")  # the last that it binds


def test_edgeproxy_listeners_are_found_and_what_is_none_is_left_to_its_own_check() -> None:
    wrong = [
        "localhost:1",
        "10.0.0.1",
        "10.0.0.1:70000",
        "10.0.0.1:9-8",
        ":443",
        "10.0.0.1:\u0663",
        7,
        None,
        "*:" + "9" * 9999,
    ]
    config = {"listener": {"a": {"tcp": [*wrong, "10.0.0.1:65535-99999"], "udp": "10.0.0.1:1"}, "b": 7}}
    assert list(edgeproxy.listening(config)) == [(Protocol.TCP, ip_address("10.0.0.1"), 65535)]
    assert list(edgeproxy.listening({"listener": ["10.0.0.1:1"]})) == []
    assert list(edgeproxy.listening({})) == []


def test_a_wide_range_is_not_told_of_port_by_port() -> None:
    config = {"listener": {"a": {"tcp": ["0.0.0.0:1-65535"]}}}
    assert len(list(edgeproxy.listening(config))) == 1024


@pytest.mark.parametrize("text", ["[listener", "a = " + "[" * 5000])
def test_what_is_no_toml_is_a_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "edge.toml").write_text(text)
    (tmp_path / "t.yaml").write_text("nodes: {a: {services: {edge: {use: edgeproxy, config: edge.toml}}}}")
    with pytest.raises(TopologyError, match=r"nodes\.a\.services\.edge\.config: edge\.toml is not TOML: "):
        load_topology(tmp_path / "t.yaml")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_file_has_no_facts_of_a_lab(file: Path) -> None:
    """So it is the same in a lab and on a real host."""
    assert "{{" not in file.read_text()
    assert list(edgeproxy.listening(tomllib.loads(file.read_text())))


def test_there_are_shipped_files() -> None:
    assert [file.stem for file in SHIPPED] == ["edge", "home"]
