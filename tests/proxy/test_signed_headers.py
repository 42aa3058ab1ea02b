"""Signed PROXY headers on TCP: who has no key names no client, whichever address it has."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.proxy import proxy_protocol as pp
from tests.proxy.conftest import Keys, Start
from tests.proxy.ends import DEADLINE, accepted, connect, is_reset, listening, own, read_all, refused
from tests.proxy.hellos import hello
from tests.proxy.running import Proxy, edgeproxy, own_address
from tests.proxy.upgrading import upgrading

ONE, TWO, THREE = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 128))
MUST, MAY, UNKEYED = "127.0.0.1", "127.0.0.2", "127.0.0.3"
HOME = """
[listener.in]
tcp = ["HERE:8443"]
proxy_header = [
  {from = "127.0.0.1/32", policy = "require", key = "KEY"},
  {from = "127.0.0.2/32", policy = "optional", key = "KEY"},
  {from = "127.0.0.3/32", policy = "optional"},
]
[[rule]]
to = "b"
[backend.b]
targets = ["HERE:9001"]
[timeouts]
header = "60s"
silence = "50s"
"""
EDGE = """
[listener.in]
tcp = ["HERE:8443"]
proxy_header = [{from = "127.0.0.2/32", policy = "require", key = "KEY"}]
[[rule]]
to = "home"
[backend.home]
targets = ["HOME"]
send_proxy = "v2"
send_proxy_with = ["hello", "unique_id", "crc32c", "received"]
sign_proxy = "KEY"
"""


@pytest.fixture(scope="module")
def proxy(module_start: Start, keys: Keys) -> Proxy:
    return module_start(HOME.replace("KEY", keys(ONE, TWO)))


@pytest.fixture(scope="module")
def backend(proxy: Proxy) -> Iterator[socket.socket]:
    with listening(proxy.here, 9001) as server:
        yield server


def through(proxy: Proxy, backend: socket.socket, sent: bytes, source: str = MUST) -> tuple[bytes, str]:
    """What the backend gets of a peer that sends this; and who the client was, by the log."""
    with connect(proxy.here, 8443, source) as client:
        who = own(client)
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        with accepted(backend) as end:
            got = read_all(end)
            end.sendall(b"answer")
        assert read_all(client) == b"answer"
    return got, str(proxy.line(who)["client"])


def not_believed(proxy: Proxy, sent: bytes, detail: str, source: str = MUST) -> None:
    line = proxy.line(refused(proxy.here, 8443, sent, source))
    outcome = {"wrong": "wrongly_signed", "unsigned": "unsigned"}.get(detail, f"signed_{detail}")
    assert (line["close"], line["close_detail"], line["header_in"]) == ("header_signature", detail, outcome)
    metrics = proxy.metrics()
    assert metrics[f'edgeproxy_proxy_headers_received_total{{outcome="{outcome}"}}'] >= 1
    assert metrics['edgeproxy_closed_total{transport="tcp",reason="header_signature"}'] >= 1
    assert "203.0.113.7" not in line["client"]


CLIENT = "203.0.113.7:40000"
SIGNED: dict[str, Callable[[bytes], bytes]] = {
    "plain": pp.signed,
    "sum": lambda key: pp.signed(key, has_sum=True),
    "tlvs": lambda key: pp.signed(key, tlvs=pp.tlv(pp.NOOP, b"") + pp.tlv(0xE0, b"own"), has_sum=True),
    "ahead": lambda key: pp.signed(key, age=-20.0),
}


@pytest.mark.parametrize("source", [MUST, MAY])
@pytest.mark.parametrize("key", [ONE, TWO], ids=["first", "second"])
@pytest.mark.parametrize("form", SIGNED)
def test_each_key_of_the_file_verifies_what_another_program_signs(
    proxy: Proxy, backend: socket.socket, source: str, key: bytes, form: str
) -> None:
    assert through(proxy, backend, SIGNED[form](key) + b"payload", source) == (b"payload", CLIENT)


UNSIGNED = {
    "v1": (pp.v1(), "unsigned"),
    "v2": (pp.v2(), "unsigned"),
    "sum": (pp.with_sum(), "unsigned"),
    "local": (pp.v2(None, command=pp.LOCAL), "unsigned"),
    "unknown": (b"PROXY UNKNOWN\r\n", "unsigned"),
    "other-key": (pp.signed(THREE), "wrong"),
    "other-keys-check": (pp.signed(THREE, None), "wrong"),
    "short": (pp.v2(tlvs=pp.tlv(pp.SIGNED, bytes(56))), "wrong"),
    "no-version": (pp.v2(tlvs=pp.tlv(pp.SIGNED, bytes(57))), "wrong"),
}


@pytest.mark.parametrize("source", [MUST, MAY])
@pytest.mark.parametrize("form", UNSIGNED)
def test_a_header_without_a_right_signature_gives_nobody_an_address(proxy: Proxy, source: str, form: str) -> None:
    header, detail = UNSIGNED[form]
    not_believed(proxy, header + b"payload", detail, source)


@pytest.mark.parametrize("age", [3600.0, 61.0, -3600.0, -90.0])
def test_a_header_of_another_time_is_refused(proxy: Proxy, age: float) -> None:
    not_believed(proxy, pp.signed(ONE, age=age), "stale")


@pytest.mark.parametrize(("age", "told"), [(3600.0, "before"), (-3600.0, "after")])
def test_the_difference_of_the_clocks_is_told_of_whoever_has_a_key(
    start: Start, keys: Keys, age: float, told: str
) -> None:
    proxy = start(HOME.replace("KEY", keys(ONE)))
    not_believed(proxy, pp.signed(TWO, age=9999.0), "wrong")
    not_believed(proxy, pp.signed(ONE, age=age), "stale")
    wait_until(lambda: "was signed" in proxy.said, DEADLINE, "a line of the clocks")
    line = proxy.said.partition("was signed ")[2].splitlines()[0]
    seconds, after = line.split(" s ", 1)
    assert float(seconds) == pytest.approx(3600.0, abs=300.0)
    assert after.startswith(f"{told} it came, by this host's clock; at most 30 s are taken")


def test_what_was_signed_before_the_process_began_is_refused(start: Start, keys: Keys) -> None:
    earlier = pp.signed(ONE)
    proxy = start(HOME.replace("KEY", keys(ONE)))
    not_believed(proxy, earlier, "stale")


def test_a_header_is_taken_once_by_whichever_worker_and_also_after_a_reload(start: Start, keys: Keys) -> None:
    config = HOME.replace("KEY", keys(ONE))
    proxy = start(config)
    with listening(proxy.here, 9001) as backend:
        header = pp.signed(ONE)
        assert through(proxy, backend, header + b"1")[1] == CLIENT
        for source in (MUST, MAY) * 4:  # each worker has some of them
            not_believed(proxy, header + b"2", "replayed", source)
        proxy.reload(config.replace(proxy.here, "HERE") + "[limits]\nconnections = 1000\n")
        not_believed(proxy, header, "replayed")
        assert through(proxy, backend, pp.signed(ONE))[1] == CLIENT


def test_no_byte_of_a_signed_header_can_be_another(proxy: Proxy) -> None:
    believed = 'edgeproxy_proxy_headers_received_total{outcome="v2"}'
    header, before = pp.signed(ONE, has_sum=True), proxy.metrics()[believed]
    for at in range(len(header)):
        with connect(proxy.here, 8443) as client:
            client.sendall(header[:at] + bytes([header[at] ^ 1]) + header[at + 1 :])
            with suppress(OSError):
                client.shutdown(socket.SHUT_WR)  # for what makes the header longer
            assert is_reset(client), at
    assert proxy.metrics()[believed] == before


def test_an_optional_header_may_be_left_out_and_other_prefixes_need_no_key(
    proxy: Proxy, backend: socket.socket
) -> None:
    got, client = through(proxy, backend, b"payload", MAY)
    assert (got, client.startswith(MAY)) == (b"payload", True)
    assert through(proxy, backend, pp.v2() + b"payload", UNKEYED) == (b"payload", CLIENT)


@pytest.mark.essential
def test_an_edge_signs_what_its_home_believes_and_no_hop_passes_a_signature_on(start: Start, keys: Keys) -> None:
    """Three hops with a key for each pair, two of them in one process each, with the sandbox as in production."""
    outer, inner = keys(ONE), keys(TWO)
    home = start(HOME.replace("KEY", inner))
    edge = start(EDGE.replace("KEY", outer, 1).replace("KEY", inner).replace("HOME", f"{home.here}:8443"))
    assert "landlock" in home.said
    with listening(home.here, 9001) as backend:
        payload, clients = hello("git.nas.example.net", ("h2",)), list[str]()
        for source, header in (("", b""), (MAY, pp.signed(ONE, tlvs=pp.tlv(0xE1, b"x")))):
            with connect(edge.here, 8443, source) as client:
                client.sendall(header + payload)
                client.shutdown(socket.SHUT_WR)
                with accepted(backend) as end:
                    assert read_all(end) == payload
                clients.append(CLIENT if header else own(client))
        wait_until(
            lambda: set(clients) == {line["client"] for line in home.lines()}, DEADLINE, "lines of these clients"
        )
    with ExitStack() as stack:
        bare = stack.enter_context(listening(edge.here, 9002))
        edge.reload(EDGE.replace("KEY", outer, 1).replace("KEY", inner).replace("HOME", "HERE:9002"))
        client = stack.enter_context(connect(edge.here, 8443, MAY))
        client.sendall(pp.signed(ONE, tlvs=pp.tlv(0xE1, b"x")) + b"payload")
        client.shutdown(socket.SHUT_WR)
        with accepted(bare) as end:
            got = read_all(end)
    found = pp.decode(got)
    header = got.removesuffix(found.rest)
    assert (found.rest, found.is_sum_right, found.tlvs[0xE1]) == (b"payload", True, b"x")
    assert pp.is_signed(header, TWO)
    assert not pp.is_signed(header, ONE)


def test_checks_are_signed_too(start: Start, keys: Keys) -> None:
    key = keys(ONE)
    home = start(HOME.replace("KEY", key))
    health = 'health = {interval = "50ms", timeout = "50ms", rise = 1, fall = 1000}\n'
    start(EDGE.replace("KEY", key).replace("HOME", f"{home.here}:8443") + health)
    counted = 'edgeproxy_proxy_headers_received_total{{outcome="{}"}}'
    wait_until(lambda: home.metrics()[counted.format("local")] >= 5, DEADLINE, "checks")
    assert home.metrics()[counted.format("unsigned")] == 0


def test_a_key_is_changed_without_losing_anybody(start: Start, keys: Keys) -> None:
    here, there = keys(ONE), keys(ONE)
    home_config = HOME.replace("KEY", here)
    home = start(home_config)
    edge_config = EDGE.replace("KEY", there).replace("HOME", f"{home.here}:8443")
    edge = start(edge_config)
    with listening(home.here, 9001) as backend:

        def passes() -> None:
            with connect(edge.here, 8443) as client:
                client.sendall(b"payload")
                client.shutdown(socket.SHUT_WR)
                with accepted(backend) as end:
                    assert read_all(end) == b"payload"

        passes()
        keys(ONE, TWO, at=here)
        home.reload(home_config)
        passes()
        keys(TWO, ONE, at=there)
        edge.reload(edge_config)
        passes()
        keys(TWO, at=here)
        home.reload(home_config)
        passes()
        not_believed(home, pp.signed(ONE), "wrong")
        # A file that is not as it must be changes nothing.
        Path(here).chmod(0o644)
        home.send_signal(1)
        wait_until(lambda: "not reloaded" in home.said, DEADLINE, "the refusal")
        assert "others may read" in home.said
        passes()
    for text in (home.said, edge.said, home.scrape(), edge.scrape(), json.dumps(home.lines())):
        assert ONE.hex() not in text
        assert TWO.hex() not in text


def test_an_upgrade_in_place_remembers_what_was_taken(start: Start, keys: Keys) -> None:
    proxy = start(HOME.replace("KEY", keys(ONE)))
    with listening(proxy.here, 9001) as backend, upgrading(proxy) as upgrades:
        header, early = pp.signed(ONE), pp.signed(ONE)
        assert through(proxy, backend, header)[1] == CLIENT
        upgrades.upgrade()
        not_believed(proxy, header, "replayed")
        assert through(proxy, backend, early)[1] == CLIENT, "it was signed before the new process began"


WRONG_FILES = {
    "others": (ONE.hex(), 0o640, "its mode is 640"),
    "short": (ONE.hex()[:62], 0o600, "line 1 has 31 bytes"),
    "words": ("correct horse battery staple, correct horse battery staple, horse", 0o600, "line 1 is not of hexa"),
    "none": ("\n", 0o600, "no key"),
    "typed": ("00" * 32, 0o600, "line 1 was not drawn at random"),
}


@pytest.mark.parametrize("form", WRONG_FILES)
def test_check_and_start_refuse_a_file_of_no_keys_and_say_nothing_of_it(tmp_path: Path, form: str) -> None:
    text, mode, found = WRONG_FILES[form]
    key, config = tmp_path / "hop.key", tmp_path / "c.toml"
    key.write_text(text)
    key.chmod(mode)
    config.write_text(HOME.replace("KEY", str(key)).replace("HERE", "127.0.0.1"))
    for command in ("check", "run"):
        done = subprocess.run(
            [edgeproxy(), command, "-c", str(config)], capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 2
        assert f"listener.in.proxy_header[0].key: {key}: {found}" in done.stderr
        assert text.strip() == "" or text[:20] not in done.stdout + done.stderr
        assert f"c.toml:{5}:" in done.stderr


@pytest.mark.parametrize(("folder", "status"), [("", 2), ("elsewhere", 2), ("here", 0)])
def test_what_systemd_keeps_from_others_needs_no_mode_that_says_so(tmp_path: Path, folder: str, status: int) -> None:
    key, config = tmp_path / "hop.key", tmp_path / "c.toml"
    key.write_text(ONE.hex())
    key.chmod(0o440)  # of an access list this is the mask
    config.write_text(HOME.replace("KEY", str(key)).replace("HERE", "127.0.0.1"))
    given = {"": {}, "elsewhere": {"CREDENTIALS_DIRECTORY": "/run"}, "here": {"CREDENTIALS_DIRECTORY": str(tmp_path)}}
    command = [edgeproxy(), "check", "-c", str(config)]
    done = subprocess.run(command, env=given[folder], capture_output=True, timeout=DEADLINE, check=False)
    assert done.returncode == status, done.stderr


def test_check_notes_a_key_that_only_the_service_can_see(tmp_path: Path) -> None:
    config, key = tmp_path / "c.toml", "/run/credentials/nobody.service/hop.key"
    config.write_text(HOME.replace("KEY", key).replace("HERE", "127.0.0.1"))
    command = [edgeproxy(), "check", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0
    assert done.stderr.startswith("note: ")
    assert f"listener.in.proxy_header[0].key: {key}: " in done.stderr


def test_doctor_looks_at_keys_and_at_the_clock_and_explain_needs_neither(tmp_path: Path, keys: Keys) -> None:
    config, missing = tmp_path / "c.toml", str(tmp_path / "none.key")
    edge = EDGE.replace("KEY", keys(ONE, TWO), 1).replace("KEY", missing).replace("HOME", "127.0.0.1:1")
    config.write_text(edge.replace("HERE", "127.0.0.1"))

    def ask(*words: str) -> str:
        command = [edgeproxy(), *words, "-c", str(config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False).stdout

    found = {finding["name"]: finding for finding in json.loads(ask("doctor", "--json"))["findings"]}
    (right,) = (found[name] for name in found if name == "keys of listener.in.proxy_header[0].key")
    assert (right["status"], right["found"]) == ("ok", "2 keys, of 4 at most")
    wrong = found["keys of backend.home.sign_proxy"]
    assert (wrong["status"], missing in wrong["found"]) == ("missing", True)
    assert found["clock"]["status"] in {"ok", "note", "not_tried"}
    assert "home (127.0.0.1:1) with signed headers" in ask("explain")


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
def test_haproxy_takes_a_signed_header_and_passes_over_the_signature(start: Start, keys: Keys, tmp_path: Path) -> None:
    edge_config = EDGE.replace("KEY", keys(ONE))
    there = own_address()
    (tmp_path / "h.cfg").write_text(
        "defaults\n  mode http\n  timeout client 60s\n  timeout connect 60s\n  timeout server 60s\n"
        f"frontend f\n  bind {there}:9500 accept-proxy\n"
        '  http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port]"\n'
    )
    with subprocess.Popen(["haproxy", "-q", "-db", "-f", str(tmp_path / "h.cfg")]) as haproxy:
        try:
            _answers(haproxy, there)
            _asks_by(start(edge_config.replace("HOME", f"{there}:9500")))
        finally:
            haproxy.terminate()


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_nginx_takes_a_signed_header_and_passes_over_the_signature(start: Start, keys: Keys, tmp_path: Path) -> None:
    edge_config = EDGE.replace("KEY", keys(ONE))
    there = own_address()
    user = "user root;" if os.geteuid() == 0 else ""
    (tmp_path / "n.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error; {user} events {{}}\n"
        f"http {{ access_log off; server {{ listen {there}:9500 proxy_protocol;\n"
        '  location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port"; } } }\n'
    )
    with subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", "n.conf"], stderr=subprocess.DEVNULL) as nginx:
        try:
            _answers(nginx, there)
            _asks_by(start(edge_config.replace("HOME", f"{there}:9500")))
        finally:
            nginx.terminate()


def _answers(process: subprocess.Popen[bytes], there: str) -> None:
    def look() -> bool:
        assert process.poll() is None
        with socket.socket() as probe:
            return probe.connect_ex((there, 9500)) == 0

    wait_until(look, DEADLINE, "it listens")


def _asks_by(edge: Proxy) -> None:
    with connect(edge.here, 8443) as client:
        who = own(client)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(who.encode())
