"""PROXY headers to backends, read by a decoder of its own and by HAProxy."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.proxy import proxy_protocol as pp
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, accepted, connect, listening, own, read_all
from tests.proxy.hellos import hello
from tests.proxy.running import Proxy

FORMS = {
    "v1": 'send_proxy = "v1"',
    "v2": 'send_proxy = "v2"',
    "hello": 'send_proxy = "v2"\nsend_proxy_with = ["hello"]',
    "id": 'send_proxy = "v2"\nsend_proxy_with = ["unique_id"]',
    "sum": 'send_proxy = "v2"\nsend_proxy_with = ["crc32c"]',
    "all": 'send_proxy = "v2"\nsend_proxy_with = ["hello", "unique_id", "crc32c"]',
    "received": 'send_proxy = "v2"\nsend_proxy_with = ["hello", "crc32c", "received"]',
    "none": "",
}
PORTS = {form: 9000 + number for number, form in enumerate(FORMS)}
CONFIG = "".join(
    f"""
[listener.{form}]
tcp = ["HERE:{port - 1000}"]
proxy_header = [{{from = "127.0.0.2/32", policy = "require"}}]
[[rule]]
listeners = ["{form}"]
protocols = ["tls"]
to = "{form}"
[[rule]]
listeners = ["{form}"]
to = "{form}"
[backend.{form}]
targets = ["HERE:{port}"]
{FORMS[form]}
"""
    for form, port in PORTS.items()
)
NAME = "git.nas.example.net"


@pytest.fixture(scope="module")
def proxy(module_start: Start) -> Proxy:
    return module_start(CONFIG)


def sent(proxy: Proxy, form: str, payload: bytes, source: str = "") -> tuple[bytes, str]:
    """What the backend gets of a client that says this; and who the client was."""
    port = PORTS[form]
    with listening(proxy.here, port) as server, connect(proxy.here, port - 1000, source) as client:
        client.sendall(payload)
        client.shutdown(socket.SHUT_WR)
        with accepted(server) as end:
            return read_all(end), own(client)


@pytest.mark.parametrize("form", FORMS)
def test_the_header_comes_first_and_says_who_the_client_is(proxy: Proxy, form: str) -> None:
    got, who = sent(proxy, form, b"payload")
    if form == "none":
        assert got == b"payload"
    else:
        found = pp.decode(got)
        assert (found.version, found.rest) == (1 if form == "v1" else 2, b"payload")
        assert "{}:{}".format(*found.source) == who
        assert found.destination == (proxy.here, PORTS[form] - 1000)
    line = proxy.ended(who, "client_closed")
    assert line["header_out"] == {"none": "none", "v1": "v1"}.get(form, "v2")
    assert line["bytes_in"] == len(b"payload"), "the header is not the client's"


@pytest.mark.parametrize("form", [form for form in FORMS if form not in {"none", "v1"}])
def test_a_field_is_there_if_it_is_asked_for_and_only_then(proxy: Proxy, form: str) -> None:
    payload = hello(NAME, ("h2", "http/1.1"))
    got, who = sent(proxy, form, payload)
    found, line = pp.decode(got), proxy.line(who)
    assert found.rest == payload
    assert found.tlvs.get(pp.AUTHORITY) == (NAME.encode() if form in {"hello", "all", "received"} else None)
    assert found.tlvs.get(pp.ALPN) == (b"h2" if form in {"hello", "all", "received"} else None)
    assert found.tlvs.get(pp.UNIQUE_ID) == (bytes.fromhex(line["unique_id"]) if form in {"id", "all"} else None)
    assert found.is_sum_right is (True if form in {"sum", "all", "received"} else None)


@pytest.mark.parametrize("payload", [hello(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_who_names_nobody_gets_no_authority(proxy: Proxy, payload: bytes) -> None:
    got, _ = sent(proxy, "all", payload)
    found = pp.decode(got)
    assert (found.rest, found.is_sum_right) == (payload, True)
    assert set(found.tlvs) == {pp.UNIQUE_ID, pp.CRC32C}


@pytest.mark.parametrize("form", ["v1", "v2", "all"])
@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (pp.ENDS, pp.ENDS),
        (pp.ENDS6, pp.ENDS6),
        ((("::ffff:203.0.113.7", 1), ("::ffff:198.51.100.1", 2)), (("203.0.113.7", 1), ("198.51.100.1", 2))),
    ],
    ids=["ipv4", "ipv6", "v4-mapped"],
)
@pytest.mark.parametrize("build", [pp.v1, pp.v2])
def test_the_client_of_a_header_is_passed_on(
    proxy: Proxy, form: str, given: pp.Ends, passed_on: pp.Ends, build: type
) -> None:
    got, _ = sent(proxy, form, build(given) + b"payload", "127.0.0.2")
    found = pp.decode(got)
    assert ((found.source, found.destination), found.rest) == (passed_on, b"payload")


def test_the_id_of_a_header_is_passed_on(proxy: Proxy) -> None:
    for given in (b"x", b"\0\xff" * 64):
        got, who = sent(proxy, "id", pp.v2(tlvs=pp.tlv(pp.UNIQUE_ID, given)), "127.0.0.2")
        assert pp.decode(got).tlvs == {pp.UNIQUE_ID: given}
        assert proxy.line(who)["unique_id"] == given.hex()


SSL = pp.tlv(
    0x20, b"\x01\0\0\0\0" + pp.tlv(0x21, b"TLSv1.3") + pp.tlv(0x22, b"client") + pp.tlv(0x28, b"\0der\xff" * 700)
)
OF_CLIENT = [
    SSL,
    pp.tlv(0xE1, b"\0\xff"),
    pp.tlv(pp.AUTHORITY, b"a.example.net"),
    pp.tlv(pp.ALPN, b"h2"),
    pp.tlv(0x30, b"ns"),
]
OF_HEADER = [pp.tlv(pp.NOOP, b"\0\0"), pp.tlv(pp.UNIQUE_ID, b"id"), pp.tlv(0x77, b"unknown"), pp.tlv(0xF0, b"tried")]


def test_what_a_trusted_peer_says_of_the_client_is_passed_on_byte_for_byte(proxy: Proxy) -> None:
    told = b"".join([*OF_HEADER, *OF_CLIENT])
    for said in (pp.with_sum(tlvs=told), pp.with_sum(pp.ENDS6, told)):
        got, _ = sent(proxy, "received", said + b"payload", "127.0.0.2")
        found = pp.decode(got)
        assert (found.rest, found.is_sum_right) == (b"payload", True)
        assert b"".join(pp.tlv(kind, value) for kind, value in found.tlvs.items() if kind != pp.CRC32C) == b"".join(
            OF_CLIENT
        )
        got, _ = sent(proxy, "sum", said, "127.0.0.2")
        assert set(pp.decode(got).tlvs) == {pp.CRC32C}, "only where it is asked for"
    got, _ = sent(proxy, "received", pp.v2(tlvs=pp.tlv(pp.AUTHORITY, b"b")) + hello(NAME, ("h2",)), "127.0.0.2")
    tlvs = pp.decode(got).tlvs
    assert (tlvs[pp.AUTHORITY], tlvs[pp.ALPN]) == (b"b", b"h2"), "the hello tells what the peer did not"


def test_what_a_stranger_says_of_itself_is_not_passed_on_as_if_it_were_known(proxy: Proxy) -> None:
    said = pp.v2(tlvs=b"".join(OF_CLIENT))
    got, who = sent(proxy, "received", said)
    found = pp.decode(got)
    assert (set(found.tlvs), found.rest) == ({pp.CRC32C}, said)
    assert "{}:{}".format(*found.source) == who


HAPROXY = """
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
frontend all
    bind HERE:9001 accept-proxy
    bind HERE:9005 accept-proxy ssl crt FOLDER/own.pem alpn http/1.1
    http-request return status 200 content-type text/plain lf-string \
"%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority] %[fc_pp_unique_id,hex]\\n"
"""


@contextmanager
def haproxy(proxy: Proxy) -> Iterator[None]:
    folder = proxy.folder
    key = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=own"]
    subprocess.run(
        [*key, "-keyout", folder / "own.key", "-out", folder / "own.crt"], check=True, capture_output=True, timeout=60
    )
    (folder / "own.pem").write_text((folder / "own.crt").read_text() + (folder / "own.key").read_text())
    (folder / "haproxy").write_text(HAPROXY.replace("HERE", proxy.here).replace("FOLDER", str(folder)))
    with subprocess.Popen(["haproxy", "-db", "-f", folder / "haproxy"]) as process:
        try:
            wait_until(lambda: answers(proxy.here, 9001), DEADLINE, "HAProxy")
            yield
        finally:
            process.kill()


def answers(address: str, port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex((address, port)) == 0


@pytest.mark.skipif(shutil.which("haproxy") is None or shutil.which("curl") is None, reason="needs haproxy and curl")
def test_haproxy_reads_the_same(proxy: Proxy, tmp_path: Path) -> None:
    with haproxy(proxy):
        for form, scheme in (("v2", "http"), ("all", "https")):
            port = PORTS[form] - 1000
            url = f"{scheme}://{NAME}:{port}/"
            written = "%{local_ip} %{local_port}\n"
            command = ["curl", "-sk", "-m", "60", "-w", written, "--connect-to", f"::{proxy.here}:", url]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            read, real = done.stdout.splitlines()
            line = proxy.line(real.replace(" ", ":"))
            end = f" {NAME} {line['unique_id'].upper()}" if form == "all" else ""
            assert re.sub(r"\s+$", "", read) == f"{real} {proxy.here} {port}{end}"
