"""`lab conform` asks real products, and tells of each what it does otherwise than the specification asks."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lab.conform.asking import conform as conforming
from lab.conform.cases import Must, cases
from lab.errors import ExitCode
from lab.realise.asking import wait_until
from tests.cli.conftest import LabCommand
from tests.proxy.running import own_address, running

DEADLINE = 60.0  # seconds
PORT, BACKEND = 8443, 9001
EDGEPROXY = """
[listener.in]
tcp = ["HERE:8443"]
proxy_header = [{from = "127.0.0.0/8", policy = "require"}]
[[rule]]
to = "lab"
[backend.lab]
targets = ["HERE:9001"]
"""
NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid {folder}/nginx.pid;
events {{}}
stream {{
  server {{ listen {here}:8443 proxy_protocol; set_real_ip_from 127.0.0.0/8; proxy_protocol on;
    proxy_pass {here}:9001; }}
}}
"""
HAPROXY = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen lab
  bind {here}:8443 {accept}
  server lab {here}:9001 {send}
"""
# Of Debian 12; others do otherwise in some.
OF_NGINX = {
    "UNIQUE_ID of 128 bytes",
    "fields of 1,500 bytes",
    "v1 TCP4 with IPv6 addresses",
    "v1 TCP6 with IPv4 addresses",
    "v1 with a zero before a port",
    "v1 with a zero before a part",
    "v1 with a part of 256",
    "v1 with three parts",
    *(f"v2 with command {number}" for number in (2, 15)),
    *(f"v2 of family {number}" for number in (4, 15)),
    *(f"v2 of protocol {number}" for number in (3, 15)),
}
OF_HAPROXY = {
    "v1 UNKNOWN and more",
    "v1 with port 65536",
    "v1 with a zero before a port",
    "v1 with a zero before a part",
    "v1 with a part of 256",
    "v1 with three parts",
}


@pytest.fixture
def command() -> LabCommand:
    return LabCommand()


def conform(command: LabCommand, here: str, *words: str, code: int) -> dict[str, Any]:
    where = ("--to", f"{here}:{PORT}", "--backend", f"{here}:{BACKEND}")
    done = command("conform", *where, "--json", "--patience", str(DEADLINE), *words, code=code)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def wrong(found: dict[str, Any]) -> set[str]:
    return {each["name"] for each in found["outcomes"] if not each["holds"]}


@contextmanager
def product(argv: list[str], here: str) -> Iterator[str]:
    """It listens when the block begins."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _listens(here, process), DEADLINE, f"{argv[0]} listens")
            yield here
        finally:
            process.kill()


def _listens(here: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "it has ended"
    with socket.socket() as asking:
        return asking.connect_ex((here, PORT)) == 0


@contextmanager
def haproxy(folder: Path, *, accept: str = "accept-proxy", send: str = "send-proxy-v2") -> Iterator[str]:
    here = own_address()
    file = folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(here=here, accept=accept, send=send))
    with product(["haproxy", "-db", "-q", "-f", str(file)], here):
        yield here


def is_here(command: str, version: str) -> bool:
    if shutil.which(command) is None:
        return False
    done = subprocess.run([command, "-v"], capture_output=True, text=True, check=False, timeout=DEADLINE)
    return version in done.stdout + done.stderr


@pytest.mark.essential
@pytest.mark.parametrize("sent", ["v1", "v2"])
def test_edgeproxy_does_all_that_is_asked(command: LabCommand, sent: str) -> None:
    with running(f'{EDGEPROXY}send_proxy = "{sent}"') as proxy:
        found = conform(command, proxy.here, code=ExitCode.OK)
        where = ("--to", f"{proxy.here}:{PORT}", "--backend", f"{proxy.here}:{BACKEND}", "--patience", str(DEADLINE))
        assert len(command("conform", *where, code=ExitCode.OK).stdout.splitlines()) == 1, "nothing to tell"
        in_full = command("conform", *where, "--all", code=ExitCode.OK).stdout
        assert sum(line.endswith("  yes") for line in in_full.splitlines()) == len(cases())
    assert found["addresses_seen"]
    assert found["held"] == found["asked"] == len(cases()) > 70
    refused = {each["name"] for each in found["outcomes"] if each["did"] == "refused"}
    may = {case.name for case in cases() if case.must is Must.REFUSE_OR_SKIP}
    assert may <= refused, "what it reads it checks"


@pytest.mark.skipif(not is_here("nginx", "1.22"), reason="nginx 1.22 is not here")
def test_nginx_is_told_from_the_specification(command: LabCommand, tmp_path: Path) -> None:
    here = own_address()
    (tmp_path / "conf").write_text(NGINX.format(folder=tmp_path, here=here))
    with product(["nginx", "-c", f"{tmp_path}/conf", "-e", f"{tmp_path}/log"], here):
        assert wrong(conform(command, here, code=ExitCode.FAILED)) == OF_NGINX


@pytest.mark.skipif(not is_here("haproxy", "2.6"), reason="HAProxy 2.6 is not here")
def test_haproxy_is_told_from_the_specification(command: LabCommand, tmp_path: Path) -> None:
    with haproxy(tmp_path) as here:
        found = conform(command, here, code=ExitCode.FAILED)
        assert wrong(found) == OF_HAPROXY
        did = {each["name"]: each["did"] for each in found["outcomes"]}
        assert did["v1 with port 65536"] == "taken, from 192.0.2.33:0"
        where = ("--to", f"{here}:{PORT}", "--backend", f"{here}:{BACKEND}", "--patience", str(DEADLINE))
        text = command("conform", *where, code=ExitCode.FAILED).stdout
    assert text.splitlines()[0].split() == ["HEADER", "SECTION", "MUST", "DID", "HOLDS"]
    assert text.splitlines()[-1].startswith("takes 21 of 22 that it must take, refuses 32 of 37 that it must refuse; ")


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not here")
def test_who_reads_no_headers_fails_in_all_that_must_be_read(command: LabCommand, tmp_path: Path) -> None:
    with haproxy(tmp_path, accept="") as here:
        found = conform(command, here, code=ExitCode.FAILED)
    failed = {case.name for case in cases() if case.sent}
    assert wrong(found) == failed | {"no header at all"}
    assert {each["did"] for each in found["outcomes"] if each["name"] == "v2 IPv4"} == {
        "taken, with 56 bytes before what was said"
    }


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not here")
def test_whom_a_product_believes_is_unknown_where_its_backend_is_not_told(command: LabCommand, tmp_path: Path) -> None:
    with haproxy(tmp_path, send="") as here:
        assert not conform(command, here, code=ExitCode.FAILED)["addresses_seen"]
        text = command("conform", "--to", f"{here}:{PORT}", "--backend", f"{here}:{BACKEND}", code=1).stdout
    assert "was not seen: its backend got no PROXY header" in text


def test_who_passes_all_on_unread_and_keeps_its_connections_is_told_so_and_not_waited_for() -> None:
    here = own_address()
    kept: list[socket.socket] = []
    asked = [case for case in cases() if case.name in {"v2 IPv4", "v1 UNKNOWN", "no header at all"}]
    with socket.create_server((here, PORT), backlog=64) as product, ThreadPoolExecutor() as pool:

        def forward(client: socket.socket, backend: socket.socket) -> None:
            with client, suppress(ConnectionResetError):
                while data := client.recv(65536):
                    backend.sendall(data)

        def serve() -> None:
            for _ in asked:
                client, _ = product.accept()
                kept.append(socket.create_connection((here, BACKEND), DEADLINE))
                pool.submit(forward, client, kept[-1])

        serving = pool.submit(serve)
        found = conforming((here, PORT), (here, BACKEND), asked, patience=DEADLINE)
        serving.result(DEADLINE)
        assert [(each.did, each.holds) for each in found] == [("passed on unread", False)] * 3
        for backend in kept:
            with backend, suppress(ConnectionResetError):  # that is the end, too
                assert backend.recv(1) == b""


def test_who_takes_connections_and_says_nothing_takes_nothing(command: LabCommand) -> None:
    here = own_address()
    began = time.monotonic()
    with socket.create_server((here, PORT), backlog=4096):
        found = conform(command, here, "--patience", "0.05", code=ExitCode.FAILED)
    assert time.monotonic() - began < 10, "with the patience of one who says nothing of it 13 s"
    assert {each["did"] for each in found["outcomes"]} == {"nothing came"}
    assert wrong(found) == {case.name for case in cases() if not case.must.may_refuse}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--to", "127.0.0.1", "--backend", "9001"), 2, "--to '127.0.0.1': ADDRESS:PORT"),
        (("--to", "127.0.0.1:0", "--backend", "9001"), 2, "--to '127.0.0.1:0'"),
        (("--to", "127.0.0.1:8443", "--backend", "nas"), 2, "--backend 'nas'"),
        (("--to", "127.0.0.1:8443", "--backend", "192.0.2.1:9001"), 2, "the backend 192.0.2.1:9001"),
        (("--to", "127.0.0.1:8443", "--backend", "9001", "--patience", "0"), 2, "--patience 0"),
    ],
)
def test_wrong_words_are_refused(command: LabCommand, words: tuple[str, ...], code: int, said: str) -> None:
    assert said in command("conform", *words, code=code).stderr


def test_a_product_that_is_not_there_is_said_to_be(command: LabCommand) -> None:
    here = own_address()
    done = command("conform", "--to", f"{here}:{PORT}", "--backend", f"{here}:{BACKEND}", code=ExitCode.FAILED)
    assert f"{here}:{PORT}: Connect call failed" in done.stderr or "must listen there" in done.stderr
    assert os.linesep not in done.stderr.strip(), "once"
