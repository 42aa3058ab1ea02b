"""The shipped unit, configuration and drop-ins under a real systemd, installed by the very lines of the documentation.

client -- home (systemd, the proxy by home.toml) -- nas
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.proxy import proxy_protocol as pp
from tests.proxy.booted import Booted, booted
from tests.proxy.ends import DEADLINE, PORTS, accepted, is_reset, own, peer, read
from tests.proxy.running import edgeproxy
from tests.realise.conftest import Up

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24]}
  lan: {prefixes: [192.168.1.0/24]}
nodes:
  client: {links: {internet: 198.51.100.66}}
  home: {role: router, links: {internet: 198.51.100.1, lan: 192.168.1.1}}
  nas: {links: {lan: 192.168.1.10}}
"""
HOME, CLIENT, NAS = "198.51.100.1", "198.51.100.66", "192.168.1.10"
UNIT = "edgeproxy.service"
SERVES = {"ActiveState": "active", "SubState": "running", "StatusText": "serving"}


def commands(page: str, heading: str) -> list[str]:
    """The lines of a section that begin with root's prompt."""
    section = (ROOT / "docs" / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^    # (.*)$", section, re.MULTILINE)


def edited(page: str) -> str:
    """What the page has a person write into the editor of `systemctl edit`."""
    block = (ROOT / "docs" / page).read_text().split("    # systemctl edit edgeproxy\n")[1].split("\n\n")[0]
    return "".join(f"{line.removeprefix('    ')}\n" for line in block.splitlines())


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture
def home(lab: Lab, folder: Path) -> Iterator[Booted]:
    """Installed and started: the shipped files, but a low port, and a backend on another host."""
    with booted(lab["home"], folder) as system:
        system.run("mkdir -p proxy/examples")
        system.put("/root/edgeproxy", Path(edgeproxy()))
        for file in (ROOT / "proxy/examples").iterdir():
            system.put(f"/root/proxy/examples/{file.name}", file)
        shipped = (ROOT / "proxy/examples/home.toml").read_text()
        ours = shipped.replace(":4443", ":444").replace("127.0.0.1:8000", f"{NAS}:8000")
        assert ours.count(':444"') >= 4
        assert NAS in ours
        system.put("/root/proxy/examples/edge.toml", ours)
        *install, enable, drop_in = commands("edgeproxy_operation.md", "Installing")
        assert enable == "systemctl enable --now edgeproxy"
        assert drop_in.endswith("/edgeproxy.service.d/home.conf")
        for command in (*install, drop_in, enable):
            system.run(command)
        yield system


class Visit:
    """A client of the web server on the home host, which sees the client's own endpoint, and both stay."""

    def __init__(self, client: socket.socket, backend: socket.socket) -> None:
        self.client, self.backend = client, backend
        self.who = own(client)

    def goes_on(self) -> None:
        self.client.sendall(b"more")
        assert read(self.backend, 4) == b"more"
        self.backend.sendall(b"back")
        assert read(self.client, 4) == b"back"


@contextmanager
def visiting(lab: Lab, port: int = 80) -> Iterator[Visit]:
    said = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with (
        lab["home"].listen(port, "127.0.0.1") as server,
        lab["client"].connect((HOME, 444), DEADLINE, source=(CLIENT, next(PORTS))) as client,
    ):
        client.sendall(said)
        server.settimeout(DEADLINE)
        with accepted(server) as backend:
            assert peer(backend) == own(client)
            assert read(backend, len(said)) == said
            visit = Visit(client, backend)
            visit.goes_on()
            yield visit


def asks_nas(lab: Lab) -> None:
    """A datagram there and back, to a service on another host that sees the client: nftables' rules work."""
    with lab["nas"].udp(8000, NAS, timeout=DEADLINE) as server, lab["client"].udp(next(PORTS), CLIENT) as client:
        client.settimeout(DEADLINE)
        client.sendto(b"ask", (HOME, 444))
        said, whom = server.recvfrom(99)
        assert (said, whom) == (b"ask", client.getsockname())
        server.sendto(b"answer", whom)
        assert client.recvfrom(99) == (b"answer", (HOME, 444))


def main_pid(system: Booted) -> str:
    return system.wait_for(UNIT, **SERVES)["MainPID"]


def said(system: Booted, text: str) -> bool:
    return any(text in str(line["MESSAGE"]) for line in system.lines(UNIT))


def is_ruled(system: Booted) -> bool:
    return (
        system.run("ip rule").stdout.count(" lookup 25968 ") == 2
        and "edgeproxy" in system.run("nft list tables").stdout
    )


def test_the_service_starts_carries_and_is_told_of_in_the_journal(lab: Lab, home: Booted) -> None:
    state = home.wait_for(UNIT, **SERVES)
    status = home.run(f"cat /proc/{state['MainPID']}/status", check=False).stdout
    assert status
    uid = re.search(r"^Uid:\t(\d+)", status, re.MULTILINE)
    assert uid
    assert 61184 <= int(uid[1]) <= 65519, "a user that is there for the service alone (DynamicUser)"
    assert is_ruled(home)
    with visiting(lab) as visit:
        pass
    asks_nas(lab)
    wait_until(lambda: said(home, f'"peer":"{visit.who}"'), DEADLINE, "its line")
    line = next(line for line in home.lines(UNIT) if visit.who in line["MESSAGE"])
    assert (line["SYSLOG_IDENTIFIER"], line["_SYSTEMD_UNIT"]) == ("edgeproxy", UNIT)
    assert '"source":"client_endpoint"' in line["MESSAGE"]
    home.run("nft flush ruleset; ip rule del lookup 25968")
    wait_until(lambda: is_ruled(home), DEADLINE, "the rules, put back")


def test_a_reload_takes_a_new_file_and_refuses_a_faulty_one(lab: Lab, home: Booted) -> None:
    """The reload is over when the file is in force, for the one who asked systemd, too."""
    first = main_pid(home)
    shipped = home.run("cat /etc/edgeproxy/edgeproxy.toml").stdout
    assert '127.0.0.1:80"' in shipped
    with visiting(lab) as visit:
        for port in range(81, 86):
            home.put("/etc/edgeproxy/edgeproxy.toml", shipped.replace('127.0.0.1:80"', f'127.0.0.1:{port}"'))
            home.run("systemctl reload edgeproxy")
            state = home.state(UNIT)
            assert {key: state[key] for key in SERVES} == SERVES
            with visiting(lab, port):
                visit.goes_on()
        home.run("echo '[faulty' >> /etc/edgeproxy/edgeproxy.toml")
        refused = home.run("systemctl reload edgeproxy", check=False)
        assert refused.returncode != 0
        assert said(home, "/etc/edgeproxy/edgeproxy.toml:"), "what is wrong stands in the journal"
        assert main_pid(home) == first
        assert home.state(UNIT)["Result"] == "success"
        visit.goes_on()
        home.run(f"kill -HUP {first}")
        wait_until(lambda: told_of_refusals(home) == 2, DEADLINE, "the refusal of what the signal asks for")
        main_pid(home)
        visit.goes_on()
    with visiting(lab, 85):
        pass


def told_of_refusals(system: Booted) -> int:
    """Of the proxy itself, not of the command that asked."""
    main = system.state(UNIT)["MainPID"]
    lines = [line for line in system.lines(UNIT) if line["_PID"] == main]
    return sum("not reloaded, the old configuration stays: " in str(line["MESSAGE"]) for line in lines)


def test_a_key_for_signed_headers_comes_by_systemd_and_stays_roots(lab: Lab, home: Booted) -> None:
    key, given = bytes(range(32)), "/run/credentials/edgeproxy.service/hop.key"
    home.run(f"umask 077; echo {key.hex()} >/etc/edgeproxy/hop.key; mkdir -p /etc/systemd/system/{UNIT}.d")
    home.put(f"/etc/systemd/system/{UNIT}.d/key.conf", "[Service]\nLoadCredential=hop.key:/etc/edgeproxy/hop.key\n")
    trust = f'proxy_header = [{{from = "{CLIENT}/32", policy = "optional", key = "{given}"}}]'
    home.run(f"sed -i '/^proxy_header/c{trust}' /etc/edgeproxy/edgeproxy.toml; systemctl daemon-reload")
    home.run("systemctl restart edgeproxy")
    main_pid(home)
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    def say(header: bytes) -> socket.socket:
        client = lab["client"].connect((HOME, 444), DEADLINE, source=(CLIENT, next(PORTS)))
        client.sendall(header + request)
        return client

    for _ in range(2):
        with lab["home"].listen(80, "127.0.0.1") as server, say(pp.signed(key)):
            server.settimeout(DEADLINE)
            with accepted(server) as backend:
                assert read(backend, len(request)) == request
                assert peer(backend) == "203.0.113.7:40000"
        with say(pp.v2()) as client:
            assert is_reset(client)
        home.run("systemctl reload edgeproxy")  # what is in the sandbox can read it again
        wait_until(lambda: said(home, "edgeproxy: reloaded"), DEADLINE, "the reload")
    assert home.run(f"stat -c %a%U {given}").stdout.strip().startswith("4")
    assert not said(home, key.hex())


def test_a_log_in_a_file_is_rotated_and_root_asks_at_the_socket(lab: Lab, home: Booted) -> None:
    log = "/var/log/edgeproxy/access.log"
    home.run(f"sed -i 's|^access_log = .*|access_log = \"{log}\"|' /etc/edgeproxy/edgeproxy.toml")
    home.run("systemctl restart edgeproxy")
    main_pid(home)

    def is_in(file: str, who: str) -> bool:
        return who in home.run(f"cat {file}", check=False).stdout

    with visiting(lab) as before:
        pass
    wait_until(lambda: is_in(log, before.who), DEADLINE, "the line")
    rotated = (ROOT / "proxy/examples/logrotate.conf").read_text()
    (after_it,) = re.findall(r"^ +(systemctl .*)$", rotated, re.MULTILINE)
    home.run(f"mv {log} {log}.1; {after_it}")
    with visiting(lab) as after:
        wait_until(lambda: home.run(f"test -e {log}", check=False).returncode == 0, DEADLINE, "the new file")
    wait_until(lambda: is_in(log, after.who), DEADLINE, "the line")
    assert not is_in(f"{log}.1", after.who)
    at = "--socket /run/edgeproxy/admin.sock"
    home.run(f"edgeproxy deny {CLIENT} --for 1h {at}")
    assert CLIENT in home.run(f"edgeproxy denied {at}").stdout


def test_newer_versions_take_over_one_after_the_other_by_reload(lab: Lab, home: Booted) -> None:
    home.run("mkdir -p /etc/systemd/system/edgeproxy.service.d")
    home.put("/etc/systemd/system/edgeproxy.service.d/override.conf", edited("edgeproxy.md"))
    home.run("systemctl daemon-reload")
    had = [main_pid(home)]

    def upgrade() -> None:
        home.run("systemctl reload edgeproxy")
        wait_until(lambda: home.state(UNIT)["MainPID"] not in {*had, "0"}, DEADLINE, "another main process")
        had.append(main_pid(home))

    with visiting(lab) as visit:
        for _ in range(2):  # with and without a connection that goes on in the process before
            upgrade()
            visit.goes_on()
    upgrade()
    assert is_ruled(home)
    with visiting(lab):
        asks_nas(lab)
    wait_until(lambda: home.run("pgrep -x edgeproxy").stdout.split() == had[-1:], DEADLINE, "the ends of the others")
    assert home.state(UNIT)["NRestarts"] == "0"
    assert {line["SYSLOG_IDENTIFIER"] for line in home.lines(UNIT)} == {"edgeproxy", "systemd"}
    home.run("systemctl stop edgeproxy")
    assert home.wait_for(UNIT, ActiveState="inactive")["Result"] == "success"


def test_it_is_started_anew_when_it_is_killed_and_drains_when_it_is_stopped(lab: Lab, home: Booted) -> None:
    home.run(f"kill -KILL {main_pid(home)}")
    home.wait_for(UNIT, NRestarts="1", **SERVES)
    wait_until(lambda: is_ruled(home), DEADLINE, "the rules")
    with visiting(lab) as visit:
        home.run("systemctl stop --no-block edgeproxy")
        home.wait_for(UNIT, ActiveState="deactivating", StatusText="draining")
        visit.goes_on()
    assert home.wait_for(UNIT, ActiveState="inactive")["Result"] == "success"
    assert "25968" not in home.run("ip rule; nft list ruleset").stdout
    assert home.run("ls /run/edgeproxy", check=False).returncode != 0
