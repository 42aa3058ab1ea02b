"""/etc/hosts and /etc/resolv.conf change as programs change them: by a new file of the same name, and by links."""

from __future__ import annotations

import shlex
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.node import Node
from tests.proxy.ends import own
from tests.proxy.running import DEADLINE, OPERATION, Proxy, edgeproxy
from tests.proxy.test_upgrade_operation import answered
from tests.realise.conftest import Up

CONFIG = """
workers = 1
[listener.in]
tcp = ["127.0.0.1:8000"]
[[rule]]
to = "web"
[backend.web]
targets = ["nas.example.net:9000"]
[targets]
allow = ["127.0.0.0/8"]
[resolver]
max_ttl = "1s"
timeout = "5s"
[timeouts]
drain = "100ms"
"""
PLACES = ["127.0.0.2", "127.0.0.3"]


@pytest.fixture(scope="module")
def node(module_up: Up) -> Iterator[Node]:
    node: Node = module_up("nodes: {a: {}}")["a"]
    with ExitStack() as stack:
        for place in PLACES:
            server = stack.enter_context(node.listen(9000, place))
            serving_it = threading.Thread(target=_serve, args=(server,))
            serving_it.start()
            stack.callback(serving_it.join)
            stack.callback(server.shutdown, socket.SHUT_RDWR)
        yield node


def _serve(server: socket.socket) -> None:
    """One client after the other: those whom nobody takes would keep the next ones out."""
    server.settimeout(None)
    with suppress(OSError):  # the end of the listening socket
        while True:
            client, _ = server.accept()
            with client, suppress(OSError):
                client.settimeout(DEADLINE)
                client.recv(1)


@contextmanager
def serving(node: Node, folder: Path, prepare: Callable[[Path, Path], None]) -> Iterator[Proxy]:
    """A proxy whose /etc and /run are folders of the test, which are prepared before it starts."""
    etc, run = folder / "etc", folder / "run"
    etc.mkdir(parents=True)
    run.mkdir()
    prepare(etc, run)
    proxy = Proxy(folder, "127.0.0.1", node.connect)
    proxy.write(CONFIG + OPERATION)
    mounts = [["mount", "--bind", str(etc), "/etc"], ["mount", "--bind", str(run), "/run"]]
    command = ["exec", edgeproxy(), "run", "-c", str(proxy.config)]
    script = " && ".join(shlex.join(words) for words in [*mounts, command])
    with (
        (folder / "stderr").open("w") as stderr,
        node.start(["unshare", "--mount", "sh", "-c", script], stderr=stderr) as process,
    ):
        wait_until(lambda: "edgeproxy: ready" in proxy.said, DEADLINE, "the start")
        proxy.pid, proxy.send_signal, proxy.wait = process.pid, process.send_signal, process.wait
        yield proxy
        process.terminate()
        assert process.wait(DEADLINE) == 0, proxy.said


def replace(path: Path, text: str) -> None:
    """As editors, NetworkManager, resolvconf and systemd-resolved write them."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


def link(path: Path, to: str) -> None:
    new = path.with_name(path.name + ".new")
    new.symlink_to(to)
    new.replace(path)


def leads_to(node: Node, proxy: Proxy) -> str:
    """Where the next client is led."""
    with node.connect(("127.0.0.1", 8000), DEADLINE) as client:
        who = own(client)
        line = proxy.wait_for(lambda line: line["peer"] == who and line["target"] is not None, "the connection")
    return str(line["target"])


def _is_led(node: Node, proxy: Proxy, place: str) -> bool:
    return leads_to(node, proxy) == f"{place}:9000"


@contextmanager
def name_server(node: Node, address: str, says: str) -> Iterator[None]:
    """All names are at one address."""
    stopping = False
    with node.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        server.settimeout(0.05)

        def serve() -> None:
            while not stopping:
                with suppress(TimeoutError):
                    question, peer = server.recvfrom(999)
                    server.sendto(answered(question, says), peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            stopping = True
            thread.join()


def hosts(place: str) -> str:
    return f"127.0.0.1 localhost\n{place} nas.example.net\n"


@pytest.mark.essential
def test_a_hosts_file_that_is_replaced_is_read_anew(node: Node, lab_folder: Path) -> None:
    def prepare(etc: Path, _: Path) -> None:
        (etc / "hosts").write_text(hosts(PLACES[0]))

    with serving(node, lab_folder / "hosts", prepare) as proxy:
        etc = proxy.folder / "etc"
        assert leads_to(node, proxy) == f"{PLACES[0]}:9000"
        for place in (PLACES[1], PLACES[0]):
            replace(etc / "hosts", hosts(place))
            is_new = partial(_is_led, node, proxy, place)
            wait_until(is_new, DEADLINE, "the new file")
        with (etc / "hosts").open("w") as file:  # in place
            file.write(hosts(PLACES[1]))
        wait_until(lambda: _is_led(node, proxy, PLACES[1]), DEADLINE, "the changed file")
        (etc / "hosts").unlink()
        proxy.send_signal(signal.SIGHUP)
        wait_until(lambda: "edgeproxy: reloaded" in proxy.said, DEADLINE, "the reload")
        assert leads_to(node, proxy) == f"{PLACES[1]}:9000", "while there is none, the last one holds"


@pytest.mark.essential
@pytest.mark.parametrize("way", ["file", "link's target", "link"])
def test_servers_that_are_replaced_are_asked(node: Node, lab_folder: Path, way: str) -> None:
    def prepare(etc: Path, run: Path) -> None:
        (run / "resolve").mkdir()
        first = run / "resolve/stub-resolv.conf"
        first.write_text("nameserver 127.0.0.53\n")
        if way == "file":
            first.rename(etc / "resolv.conf")
        else:
            (etc / "resolv.conf").symlink_to("../run/resolve/stub-resolv.conf")

    with (
        name_server(node, "127.0.0.53", PLACES[0]),
        name_server(node, "127.0.0.54", PLACES[1]),
        serving(node, lab_folder / f"resolv-{way[-4:]}", prepare) as proxy,
    ):
        etc, run = proxy.folder / "etc", proxy.folder / "run"
        assert leads_to(node, proxy) == f"{PLACES[0]}:9000"
        text = "# by a program\nnameserver 127.0.0.54\n"
        if way == "file":
            replace(etc / "resolv.conf", text)
        elif way == "link":
            (run / "other").mkdir()
            (run / "other/resolv.conf").write_text(text)
            link(etc / "resolv.conf", "/run/other/resolv.conf")
        else:
            replace(run / "resolve/stub-resolv.conf", text)
        wait_until(lambda: _is_led(node, proxy, PLACES[1]), DEADLINE, "the new server")


def test_a_link_that_leads_out_of_reach_is_told_once_and_one_that_leads_back_is_read(
    node: Node, lab_folder: Path
) -> None:
    def prepare(etc: Path, _: Path) -> None:
        (etc / "hosts").write_text(hosts(PLACES[0]))

    with serving(node, lab_folder / "out", prepare) as proxy:
        etc, run = proxy.folder / "etc", proxy.folder / "run"
        wait_until(lambda: _is_in_its_sandbox(node, proxy), DEADLINE, "the reader's sandbox")
        (proxy.folder / "elsewhere").mkdir()
        (proxy.folder / "elsewhere/hosts").write_text(hosts(PLACES[1]))
        link(etc / "hosts", str(proxy.folder / "elsewhere/hosts"))
        wait_until(lambda: "/etc/hosts cannot be read any more" in proxy.said, DEADLINE, "the word of it")
        assert leads_to(node, proxy) == f"{PLACES[0]}:9000"
        (run / "hosts").write_text(hosts(PLACES[1]))
        link(etc / "hosts", "/run/hosts")
        wait_until(lambda: _is_led(node, proxy, PLACES[1]), DEADLINE, "the new file")
        assert proxy.said.count("cannot be read") == 1


def _is_in_its_sandbox(node: Node, proxy: Proxy) -> bool:
    """Whether the process that reads them is: from then on links of later lead where it may not read."""
    readers = _readers(node, proxy)
    return len(readers) == 1 and b"Seccomp:\t2" in node.read(f"/proc/{readers[0]}/status")


def test_who_reads_them_ends_with_the_proxy_and_has_no_rights(node: Node, lab_folder: Path) -> None:
    def prepare(etc: Path, _: Path) -> None:
        (etc / "hosts").write_text(hosts(PLACES[0]))

    with serving(node, lab_folder / "reader", prepare) as proxy:
        wait_until(lambda: _is_in_its_sandbox(node, proxy), DEADLINE, "the reader's sandbox")
        (reader,) = _readers(node, proxy)
        lines = node.read(f"/proc/{reader}/status").decode().splitlines()
        status = {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        proxy.send_signal(signal.SIGHUP)
        wait_until(lambda: "edgeproxy: reloaded" in proxy.said, DEADLINE, "the reload")
        assert _readers(node, proxy) == [reader]
    wait_until(lambda: not _runs(node, reader), DEADLINE, "its end")


def test_its_end_is_told(node: Node, lab_folder: Path) -> None:
    with serving(node, lab_folder / "reader-ends", lambda *_: None) as proxy:
        wait_until(lambda: len(_readers(node, proxy)) == 1, DEADLINE, "the reader")
        node.run(["kill", "-KILL", *_readers(node, proxy)], check=True)
        wait_until(lambda: "nobody reads /etc/hosts" in proxy.said, DEADLINE, "the word of it")


def _readers(node: Node, proxy: Proxy) -> list[str]:
    """Of this proxy: that of another may end later than it."""
    return node.run(["pgrep", "-P", str(proxy.pid), "-f", "exe read-names"]).stdout.split()


def _runs(node: Node, pid: str) -> bool:
    return node.run(["test", "-d", f"/proc/{pid}"]).returncode == 0
