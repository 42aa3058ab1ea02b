"""The generated configurations before the real programs: they must be taken, and mean what was meant."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.topology.load import load_topology
from lab.topology.model import Protocol, Service
from lab.topology.services.nginx import listening

RESOLVER = "127.0.53.1"
PATIENCE = 5.0  # seconds

TOPOLOGY = f"""
networks: {{lan: {{prefixes: [10.0.0.0/24, "2001:db8::/64"]}}}}
nodes:
  dual: {{links: {{lan: 10.0.0.10}}}}
  a:
    links: {{lan: auto}}
    services:
      ssh: {{use: sshd, port: 2222}}
      web: {{use: nginx, config: nginx.conf}}
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


def service(folder: Path, name: str) -> Service:
    (folder / "nginx.conf").write_text(NGINX)
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
def dnsmasq(tmp_path: Path) -> Iterator[int]:
    """The port of a dnsmasq that runs with the generated configuration, as this user and beside port 53."""
    service(tmp_path, "dns")
    config = tmp_path / "dnsmasq.conf"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((RESOLVER, 0))
        port = int(probe.getsockname()[1])
    command = [
        program("dnsmasq"),
        "--keep-in-foreground",
        f"--conf-file={config}",
        "--log-facility=-",
        f"--port={port}",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as running:
        try:
            wait_for_answer(running, port)
            yield port
        finally:
            running.terminate()


def wait_for_answer(running: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert running.poll() is None, running.stderr.read() if running.stderr else ""
        try:
            ask(port, "four.example.net", "A")
        except AssertionError:
            assert time.monotonic() < deadline, "dnsmasq does not answer"
        else:
            return


def ask(port: int, name: str, kind: str) -> tuple[str, set[str]]:
    """Status and answers, by dig."""
    command = [program("dig"), f"@{RESOLVER}", "-p", str(port), "+tries=1", "+time=1", name, kind]
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
def test_dnsmasq_answers_its_records(dnsmasq: int, name: str, kind: str, answer: set[str]) -> None:
    assert ask(dnsmasq, name, kind) == ("NOERROR", answer)


def test_dnsmasq_knows_nothing_else(dnsmasq: int) -> None:
    assert ask(dnsmasq, "example.com", "A") == ("REFUSED", set())
    assert ask(dnsmasq, "localhost", "A")[1] == set()  # the host's hosts file


def test_nginx_listens_are_found() -> None:
    found = [(protocol, str(address) if address else None, port) for protocol, address, port in listening(NGINX)]
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
