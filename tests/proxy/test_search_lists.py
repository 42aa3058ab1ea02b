"""The search list of /etc/resolv.conf holds for short names that the file says, and for none that a client chooses."""

from __future__ import annotations

import shlex
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.node import Node
from tests.proxy.ends import is_reset, own
from tests.proxy.running import DEADLINE, Proxy, edgeproxy
from tests.realise.conftest import Up

CONFIG = r"""
workers = 1
[listener.in]
tcp = ["127.0.0.1:8000-8005"]
[[rule]]
ports = [8000]
to = "searched"
[[rule]]
ports = [8001]
to = "as-it-is"
[[rule]]
ports = [8002]
to = "down"
[[rule]]
ports = [8003]
protocols = ["http1"]
server_name = '^(?P<host>.*)$'
to = "chosen"
[[rule]]
ports = [8004]
to = "checked"
[[rule]]
ports = [8005]
protocols = ["http1"]
server_name = '^(?P<host>[^.]+)\.example\.net$'
to = "one-label"
[backend.searched]
targets = ["nas:9000"]
[backend.as-it-is]
targets = ["box:9000"]
[backend.down]
targets = ["down:9000"]
[backend.chosen]
targets = ["$host:9000"]
allow_suffixes = [".lan"]
[backend.one-label]
targets = ["$host:9000"]
allow_single_labels = true
[backend.checked]
targets = ["nas:9001"]
health = {interval = "1s", timeout = "900ms"}
[targets]
allow = ["127.0.0.0/8"]
[resolver]
timeout = "5s"
[timeouts]
drain = "100ms"
[operation]
admin_socket = "FOLDER/admin"
access_log = "FOLDER/log"
"""
# Of backends that get headers with datagrams `doctor` asks how large these may be.
DATAGRAMS = """
[listener.in]
udp = ["127.0.0.1:8000"]
[[rule]]
to = "all"
[backend.all]
targets = ["looked:9000", "down:9000"]
send_proxy_udp = "every"
"""
RESOLV_CONF = "nameserver 127.0.0.53\nsearch home.example lan\noptions ndots:2\n"
# Whatever is not here does not exist; nobody answers for what is None.
NAMES = {
    "nas.lan": "127.0.0.2",
    "looked.lan": "127.0.0.2",
    "box": "127.0.0.3",
    "down.home.example": None,
    "down.lan": "127.0.0.2",
    "down": "127.0.0.2",
    "own.lan": "127.0.0.3",
    "own.lan.lan": "127.0.0.2",
    "bare": "127.0.0.3",
    "bare.lan": "127.0.0.2",
}


class NameServer:
    """One that knows a few names, and keeps what it was asked for."""

    def __init__(self, server: socket.socket) -> None:
        self._server, self._asked = server, dict.fromkeys([""])
        self.is_stopping = False
        server.settimeout(0.05)

    def serve(self) -> None:
        while not self.is_stopping:
            with suppress(TimeoutError):
                question, peer = self._server.recvfrom(999)
                self._server.sendto(self._answer(question), peer)

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode().lower())
            at += 1 + length
        name, kind, asked = ".".join(labels), question[at + 2], question[12 : at + 5]
        self._asked[name] = None
        address = NAMES.get(name)
        code = 0 if address else 2 if name in NAMES else 3  # SERVFAIL, NXDOMAIN (RFC 1035 4.1.1)
        answers = [address] if address and kind == 1 else []
        record = b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(to) for to in answers)
        return question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(answers), 0, 0) + asked + record

    def asked(self, beginning: str) -> list[str]:
        """Names that begin so, each once, in the order of the first question."""
        return [name for name in self._asked if name.split(".")[0] == beginning]


@pytest.fixture(scope="module")
def node(module_up: Up) -> Node:
    return module_up("nodes: {a: {}}")["a"]


@pytest.fixture(scope="module")
def names(node: Node) -> Iterator[NameServer]:
    with node.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.53", 53))
        found = NameServer(server)
        thread = threading.Thread(target=found.serve)
        thread.start()
        yield found
        found.is_stopping = True
        thread.join()


@pytest.fixture(scope="module")
def proxy(node: Node, names: NameServer, lab_folder: Path) -> Iterator[Proxy]:
    assert names.asked("nobody") == []
    with ExitStack() as stack:
        for place in ("127.0.0.2", "127.0.0.3"):
            stack.enter_context(node.listen(9000, place))
        yield stack.enter_context(serving(node, lab_folder, CONFIG))


@contextmanager
def serving(node: Node, folder: Path, config: str) -> Iterator[Proxy]:
    (folder / "etc").mkdir(exist_ok=True)
    (folder / "etc/resolv.conf").write_text(RESOLV_CONF)
    proxy = Proxy(folder, "127.0.0.1", node.connect)
    proxy.write(config)
    command = in_etc(folder, "run", "-c", str(proxy.config))
    with (folder / "stderr").open("w") as stderr, node.start(command, stderr=stderr) as process:
        wait_until(lambda: "edgeproxy: ready" in proxy.said, DEADLINE, "the start")
        proxy.pid = process.pid
        yield proxy
        process.terminate()
        assert process.wait(DEADLINE) == 0, proxy.said


def in_etc(folder: Path, *words: str) -> list[str]:
    """edgeproxy, for which /etc is a folder of the test."""
    script = shlex.join(["mount", "--bind", str(folder / "etc"), "/etc"])
    return ["unshare", "--mount", "sh", "-c", f"{script} && exec {shlex.join([edgeproxy(), *words])}"]


def leads_to(node: Node, proxy: Proxy, port: int, said: bytes = b"") -> str:
    with node.connect(("127.0.0.1", port), DEADLINE) as client:
        who = own(client)
        client.sendall(said)
        line = proxy.wait_for(lambda line: line["peer"] == who and line["target"] is not None, "the connection")
    return str(line["target"])


def test_a_short_name_of_the_file_is_looked_for_in_each_domain_before_it_is_asked_for_itself(
    node: Node, proxy: Proxy, names: NameServer
) -> None:
    assert leads_to(node, proxy, 8000) == "127.0.0.2:9000"
    assert names.asked("nas") == ["nas.home.example", "nas.lan"]
    assert leads_to(node, proxy, 8001) == "127.0.0.3:9000"
    assert names.asked("box") == ["box.home.example", "box.lan", "box"]


def test_where_nobody_can_say_the_next_domain_is_not_asked(node: Node, proxy: Proxy, names: NameServer) -> None:
    with node.connect(("127.0.0.1", 8002), DEADLINE) as client:
        assert is_reset(client)
        who = own(client)
    assert proxy.line(who)["close"] == "name_not_resolved"
    assert names.asked("down") == ["down.home.example"]


def test_a_name_that_a_client_chooses_means_itself(node: Node, proxy: Proxy, names: NameServer) -> None:
    said = b"GET / HTTP/1.1\r\nHost: own.lan\r\n\r\n"
    assert leads_to(node, proxy, 8003, said) == "127.0.0.3:9000"
    assert names.asked("own") == ["own.lan"]


def test_so_does_one_label_where_it_may_be_one(node: Node, proxy: Proxy, names: NameServer) -> None:
    said = b"GET / HTTP/1.1\r\nHost: bare.example.net\r\n\r\n"
    assert leads_to(node, proxy, 8005, said) == "127.0.0.3:9000"
    assert names.asked("bare") == ["bare"]
    # Without the key the same name goes nowhere, and is not asked for.
    with node.connect(("127.0.0.1", 8003), DEADLINE) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: unasked\r\n\r\n")
        assert is_reset(client)
        who = own(client)
    line = proxy.line(who)
    assert (line["close"], line["close_detail"]) == ("name_refused", "single_label")
    assert names.asked("unasked") == []


@pytest.mark.usefixtures("proxy")
def test_checks_look_where_clients_are_led(node: Node) -> None:
    with node.listen(9001, "127.0.0.2") as server:
        server.settimeout(DEADLINE)
        server.accept()[0].close()


def test_doctor_looks_where_the_proxy_does(node: Node, names: NameServer, lab_folder: Path) -> None:
    folder = lab_folder / "doctor"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/resolv.conf").write_text(RESOLV_CONF)
    (folder / "c.toml").write_text(DATAGRAMS)
    said = node.run(in_etc(folder, "doctor", "-c", str(folder / "c.toml"))).stdout
    assert "down has no address now" in said, said
    assert "looked has no address" not in said, said
    assert names.asked("looked") == ["looked.home.example", "looked.lan"]


def test_where_the_file_names_the_servers_the_list_of_others_does_not_hold(
    node: Node, names: NameServer, lab_folder: Path
) -> None:
    folder = lab_folder / "servers"
    folder.mkdir()
    config = CONFIG.replace("[resolver]", '[resolver]\nservers = ["127.0.0.53:53"]').replace("nas:", "other:")
    config = config.replace("800", "801")
    with serving(node, folder, config) as proxy:
        with node.connect(("127.0.0.1", 8010), DEADLINE) as client:
            assert is_reset(client)
            who = own(client)
        assert proxy.line(who)["close"] == "name_not_resolved"
    assert names.asked("other") == ["other"]
