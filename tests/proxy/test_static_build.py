"""The static program (musl) in its sandbox: another C library makes other calls of the kernel, and all must pass."""

from __future__ import annotations

import platform
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.proxy.ends import DEADLINE, accepted, own, peer, read
from tests.proxy.running import OPERATION, edgeproxy, running_in
from tests.realise.conftest import Up

ROOT = Path(__file__).parents[2]
TARGET = f"{platform.machine()}-unknown-linux-musl"
BUILT = [ROOT / "target" / TARGET / kind / "edgeproxy" for kind in ("release", "debug")]
pytestmark = pytest.mark.skipif(
    not any(path.exists() for path in BUILT),
    reason=f"not built: rustup target add {TARGET} && cargo build -p homelab-lab --bin edgeproxy --target {TARGET}",
)
TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
nodes:
  client: {links: {internet: [198.51.100.66, "2001:db8:1::66"]}}
  home: {links: {internet: [198.51.100.1, "2001:db8:1::1"]}}
"""
CONFIG = """
[listener.in]
tcp = ["0.0.0.0:8443", "[::]:8443"]
udp = ["198.51.100.1:8443"]
[[rule]]
to = "web"
[backend.web]
targets = ["127.0.0.1:9001", "[::1]:9001"]
source = "client"
[transparent]
manage_rules = true
"""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> str:
    newest = max((path for path in BUILT if path.exists()), key=lambda path: path.stat().st_mtime)
    monkeypatch.setenv("EDGEPROXY", str(newest))
    return edgeproxy()


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


def test_it_needs_no_library(program: str) -> None:
    shown = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    assert any(word in shown.stdout + shown.stderr for word in ("statically linked", "not a dynamic")), shown


def test_it_carries_transparently_and_upgrades_itself(program: str, lab: Lab, lab_folder: Path) -> None:
    folder = lab_folder / "static"
    folder.mkdir()
    home, client = lab["home"], lab["client"]

    def carries() -> None:
        for here, backend in (("198.51.100.1", "127.0.0.1"), ("2001:db8:1::1", "::1")):
            with home.listen(9001, backend) as server, client.connect((here, 8443), DEADLINE) as end:
                server.settimeout(DEADLINE)
                end.sendall(b"there")
                with accepted(server) as inner:
                    assert read(inner, 5) == b"there"
                    assert peer(inner) == own(end), "the client's own endpoint"

    with running_in(home, CONFIG + OPERATION, "127.0.0.1", folder) as proxy, ExitStack() as stack:
        assert "landlock" in proxy.said
        assert "seccomp" in proxy.said
        assert proxy.status()["Seccomp"] == "2"
        carries()
        with (
            home.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
            client.socket(socket.AF_INET, socket.SOCK_DGRAM) as end,
        ):
            server.bind(("127.0.0.1", 9001))
            server.settimeout(DEADLINE)
            end.connect(("198.51.100.1", 8443))
            end.settimeout(DEADLINE)
            end.send(b"there")
            data, who = server.recvfrom(99)
            server.sendto(data, who)
            assert end.recv(99) == b"there"
        said = folder / "stderr.1"
        argv = [program, "run", "-c", str(proxy.config), "--take-over"]
        later = stack.enter_context(home.start(argv, stderr=stack.enter_context(said.open("w"))))
        wait_until(lambda: "edgeproxy: ready" in said.read_text(), DEADLINE, "the upgrade")
        assert proxy.wait(DEADLINE) == 0
        carries()
        later.terminate()
        assert later.wait(DEADLINE) == 0, said.read_text()
        assert "panicked" not in said.read_text()
