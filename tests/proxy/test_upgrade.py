"""A newer process takes over from a running one: nobody who is connected, or connects, notices."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import accepted, connect, listening, own, read
from tests.proxy.running import DEADLINE, Proxy
from tests.proxy.upgrading import Between, Flow, Heir, Load, Message, UdpEcho, Upgrades, echoing, until_ended, upgrading

CONFIG = """
workers = 2
[listener.in]
tcp = ["HERE:8000"]
udp = ["HERE:8001"]
[[rule]]
transport = "tcp"
to = "echo"
[[rule]]
transport = "udp"
to = "udp"
[backend.echo]
targets = ["HERE:9000"]
[backend.udp]
targets = ["HERE:9001"]
"""


def with_workers(count: int) -> str:
    return CONFIG.replace("workers = 2", f"workers = {count}")


@pytest.fixture
def proxy(start: Start) -> Iterator[Proxy]:
    found = start(CONFIG)
    with echoing(found.here, 9000), UdpEcho(found.here, 9001):
        yield found


@pytest.fixture
def upgrades(proxy: Proxy) -> Iterator[Upgrades]:
    with upgrading(proxy) as found:
        yield found


@pytest.fixture
def flows(proxy: Proxy) -> Iterator[list[Flow]]:
    found = [Flow(proxy.here, 8001) for _ in range(30)]
    yield found
    for flow in found:
        flow.close()


@pytest.mark.essential
def test_no_client_of_twenty_upgrades_is_refused_or_reset(proxy: Proxy, upgrades: Upgrades) -> None:
    first = proxy.pid
    with Load(proxy.here, 8000) as load:
        load.wait(20)
        for _ in range(20):
            upgrades.upgrade()
            load.wait(5)
    assert load.faults == []
    until_ended(first)
    for process in upgrades.later[:-1]:
        assert process.wait(DEADLINE) == 0
    proxy.connections()  # makes the last process write what it has to say
    wait_until(lambda: len(proxy.lines()) >= load.served, DEADLINE, "a line of each who was served")
    assert len(proxy.lines()) == load.served
    assert {line["close"] for line in proxy.lines()} <= {"client_closed", "backend_closed"}


@pytest.mark.essential
def test_udp_flows_keep_their_way_through_upgrades(proxy: Proxy, upgrades: Upgrades, flows: list[Flow]) -> None:
    for flow in flows:
        flow.ask()
    for _ in range(5):
        for flow in flows:
            flow.send()  # waits in the socket of whoever is there
        process = upgrades.upgrade()
        for flow in flows:
            flow.receive(flow.sent)
            flow.ask()
        status = upgrades.status()
        assert status["pid"] == process.pid
        assert status["listeners"][0]["udp"]["active"] == len(flows)
        assert [backend["active"] for backend in status["backends"]] == [0, len(flows)]
    assert [len(flow.backend_saw) for flow in flows] == [1] * len(flows)
    assert proxy.lines() == []
    # Each flow has one line, of the process in which it ended, with all that it carried.
    upgrades.end()
    for flow in flows:
        line = proxy.lines_of(flow.own)
        assert len(line) == 1, line
        assert line[0]["bytes_in"] == sum(len(str(n)) for n in range(1, flow.sent + 1))
        assert (line[0]["rule"], line[0]["backend"]) == ("rule 2", "udp")


def test_no_datagram_is_lost_or_doubled_while_the_sockets_change_hands(proxy: Proxy, upgrades: Upgrades) -> None:
    flow = Flow(proxy.here, 8001)
    flow.ask()
    enough, through = threading.Event(), threading.Event()

    def speak() -> None:
        # A window of 20 that are on their way: no socket's buffer overflows.
        for _ in range(20):
            flow.send()
        number = 2
        while not enough.is_set():
            flow.receive(number)
            flow.send()
            number += 1
        for last in range(number, flow.sent + 1):
            flow.receive(last)
        through.set()

    speaker = threading.Thread(target=speak)
    speaker.start()
    for _ in range(4):
        upgrades.upgrade()
    enough.set()
    speaker.join()
    assert through.is_set(), "an answer was missing, or came twice"
    assert len(flow.backend_saw) == 1
    flow.close()


@pytest.mark.essential
def test_a_download_goes_on_in_the_process_that_accepted_it(proxy: Proxy, upgrades: Upgrades) -> None:
    first, payload = proxy.pid, random.Random(1).randbytes(1 << 20)
    config = CONFIG.replace("HERE:9000", "HERE:9002")
    proxy.write(config)
    upgrades.upgrade()
    until_ended(first)
    with listening(proxy.here, 9002) as backend, connect(proxy.here, 8000) as client:
        client.sendall(b"get")
        server = accepted(backend)
        assert read(server, 3) == b"get"

        def send() -> None:
            for _ in range(64):
                server.sendall(payload)
            server.close()

        sending = threading.Thread(target=send)
        sending.start()
        digest, got = hashlib.sha256(), 0
        while data := client.recv(1 << 18):
            if got < 8 << 20 <= got + len(data):
                old = upgrades.later[-1]
                upgrades.upgrade()
            digest.update(data)
            got += len(data)
        sending.join()
        own_name = own(client)
    expected = hashlib.sha256()
    for _ in range(64):
        expected.update(payload)
    assert (got, digest.digest()) == (64 << 20, expected.digest())
    assert old.wait(DEADLINE) == 0, "the old process ends with its last connection"
    line = proxy.line(own_name)
    assert (line["bytes_out"], line["close"]) == (64 << 20, "backend_closed")


def test_connections_that_outlast_the_time_for_it_are_drained(proxy: Proxy, upgrades: Upgrades) -> None:
    proxy.write(CONFIG + '[timeouts]\nhanded_over = "100ms"\n')
    old = upgrades.upgrade()
    with connect(proxy.here, 8000) as client:
        client.sendall(b"x")
        assert client.recv(9) == b"x"
        upgrades.upgrade()
        assert old.wait(DEADLINE) == 0
        assert proxy.line(own(client))["close"] == "drained"


@pytest.mark.parametrize("counts", [(1, 3, 2), (3, 1), (2, 5)], ids=str)
def test_no_socket_is_left_unserved_when_the_number_of_workers_changes(
    proxy: Proxy, upgrades: Upgrades, flows: list[Flow], counts: tuple[int, ...]
) -> None:
    with Load(proxy.here, 8000) as load:
        for flow in flows:
            flow.ask()
        for count in counts:
            upgrades.upgrade(with_workers(count))
            assert upgrades.status()["workers"] == count
            load.wait(40)
            for flow in flows:
                flow.ask()
    assert load.faults == []
    assert [len(flow.backend_saw) for flow in flows] == [1] * len(flows)


def test_a_wrong_configuration_changes_nothing(proxy: Proxy, upgrades: Upgrades, flows: list[Flow]) -> None:
    with Load(proxy.here, 8000) as load:
        for flow in flows:
            flow.ask()
        proxy.write(CONFIG.replace('to = "echo"', 'to = "ekko"'))
        assert 'no backend is called "ekko"' in upgrades.fail(2)
        proxy.write(CONFIG.replace("HERE:8001", "192.0.2.1:8001"))
        assert "192.0.2.1:8001" in upgrades.fail(1)
        load.wait(20)
        for flow in flows:
            flow.ask()
    assert load.faults == []
    assert [len(flow.backend_saw) for flow in flows] == [1] * len(flows)
    wait_until(lambda: "did not take over" in proxy.said, DEADLINE, "word of it")
    assert upgrades.status()["pid"] == proxy.pid


def sockets(offer: list[Message]) -> list[Message]:
    return [message["sockets"]["endpoint"] for message in offer if isinstance(message, dict) and "sockets" in message]


@pytest.mark.parametrize("stage", ["asked", "offered", "taken", "given", "garbage", "silent"])
def test_a_new_process_that_fails_at_any_stage_leaves_all_to_the_old_one(
    proxy: Proxy, upgrades: Upgrades, flows: list[Flow], stage: str
) -> None:
    for flow in flows:
        flow.ask()
    with Load(proxy.here, 8000) as load:
        heir = Heir(proxy)
        if stage != "asked":
            offer = heir.hear_until("offer_ends")
            assert len(heir.descriptors) == 2 + 2 + 2
        if stage == "garbage":
            heir.say_bytes(b"\xff{[\n")
            assert heir.is_closed()
        if stage in {"taken", "given", "silent"}:
            heir.say({"taken": {"endpoints": sockets(offer), "admin_socket": True}})
        if stage in {"given", "silent"}:
            given = heir.hear_until("over")
            assert sum(len(message["flows"]) for message in given if isinstance(message, dict)) == len(flows)
            for flow in flows:
                flow.send()  # nobody receives it yet
        if stage == "silent":
            assert heir.is_closed(), "the old one waits some seconds"
        heir.close()
        wait_until(lambda: "did not take over" in proxy.said, DEADLINE, "word of it")
        for flow in flows:
            if stage in {"given", "silent"}:
                flow.receive(flow.sent)
            flow.ask()
        load.wait(10)
        assert upgrades.status()["listeners"][0]["udp"]["active"] == len(flows)
        upgrades.upgrade()
        for flow in flows:
            flow.ask()
        load.wait(10)
    assert load.faults == []
    assert [len(flow.backend_saw) for flow in flows] == [1] * len(flows)


def test_flows_that_come_back_at_once_find_their_places_free(start: Start) -> None:
    count = 400  # they do not end in one turn
    limits = f"[limits]\nudp_flows = {count}\nudp_flows_per_source = {count}\n"
    proxy = start(with_workers(1) + limits)
    with ExitStack() as stack:
        stack.enter_context(UdpEcho(proxy.here, 9001))
        flows = [Flow(proxy.here, 8001) for _ in range(count)]
        for flow in flows:
            stack.callback(flow.close)
            flow.ask()
        for number in range(1, 4):
            heir = Heir(proxy)
            offer = heir.hear_until("offer_ends")
            heir.say({"taken": {"endpoints": sockets(offer), "admin_socket": True}})
            heir.close()
            wait_until(lambda at=number: proxy.said.count("did not take over") == at, DEADLINE, "word of it")  # type: ignore[misc]
            for flow in flows:
                flow.ask()
    assert [len(flow.backend_saw) for flow in flows] == [1] * count


def killed(process: subprocess.Popen[bytes]) -> bool:
    process.kill()
    return process.wait(DEADLINE) == -signal.SIGKILL


@pytest.mark.parametrize("stage", ["begun", "asked", "offered", "taken", "given"])
def test_a_process_that_is_killed_while_it_starts_leaves_all_to_the_old_one(
    proxy: Proxy, upgrades: Upgrades, flows: list[Flow], stage: str
) -> None:
    for flow in flows:
        flow.ask()
    with Load(proxy.here, 8000) as load, Between(proxy) as between:
        process = upgrades.start(f"--take-over={between.path}")
        if stage != "begun":
            between.meet()
        if stage in {"offered", "taken", "given"}:
            between.pass_offer()
        if stage in {"taken", "given"}:
            assert between.hear_taken(), "it goes on with what is there"
        if stage == "given":
            assert between.pass_flows() == len(flows)
        assert killed(process), upgrades.said()
        between.close()
        if stage != "begun":
            wait_until(lambda: "did not take over" in proxy.said, DEADLINE, "word of it")
        for flow in flows:
            flow.ask()
        load.wait(10)
        upgrades.upgrade()
        for flow in flows:
            flow.ask()
        load.wait(10)
    assert load.faults == []
    assert [len(flow.backend_saw) for flow in flows] == [1] * len(flows)


def test_a_process_that_is_killed_before_anybody_hears_that_it_serves_leaves_all_to_the_old_one(
    proxy: Proxy, upgrades: Upgrades, flows: list[Flow]
) -> None:
    """Whom it has taken by then is lost with it, and nobody else."""
    for flow in flows:
        flow.ask()
    with Between(proxy) as between:
        process = upgrades.start(f"--take-over={between.path}")
        between.meet()
        between.pass_offer()
        assert between.hear_taken()
        between.pass_flows()
        between.pass_end()
        assert between.hears_that_it_serves()
        assert killed(process), upgrades.said()
    wait_until(lambda: "did not take over" in proxy.said, DEADLINE, "word of it")
    with Load(proxy.here, 8000) as load:
        for flow in flows:
            flow.ask()
        load.wait(10)
        upgrades.upgrade()
        load.wait(10)
    assert load.faults == []
    assert [len(flow.backend_saw) for flow in flows] == [1] * len(flows)


def test_only_one_process_at_a_time_takes_over_and_no_reload_comes_between(proxy: Proxy, upgrades: Upgrades) -> None:
    heir = Heir(proxy)
    heir.hear_until("offer_ends")
    other = Heir(proxy)
    assert other.hear() == {"error": "another process is about to take over"}
    assert "another process is about to take over" in upgrades.fail(1)
    os.kill(proxy.pid, signal.SIGHUP)
    wait_until(lambda: "not reloaded" in proxy.said, DEADLINE, "the reload is refused")
    heir.close()
    other.close()
    upgrades.upgrade()


def test_a_proxy_that_is_told_to_end_meanwhile_hands_nothing_over(proxy: Proxy) -> None:
    heir = Heir(proxy)
    offer = heir.hear_until("offer_ends")
    os.kill(proxy.pid, signal.SIGTERM)
    until_ended(proxy.pid)
    assert heir.is_closed()
    assert len(offer) == 4
    heir.close()


@pytest.mark.parametrize("version", [0, 1, 4294967295])
def test_an_unknown_version_is_refused_in_words(proxy: Proxy, version: int) -> None:
    heir = Heir(proxy, version)
    answer = heir.hear()
    assert isinstance(answer, dict)
    assert f"by version 2 of the messages, not {version}" in answer["error"]
    heir.close()


def test_without_a_running_proxy_there_is_nothing_to_take_over(proxy: Proxy, upgrades: Upgrades) -> None:
    nobody = proxy.folder / "nobody"
    assert "is edgeproxy running" in upgrades.fail(1, f"--take-over={nobody}")
    proxy.write(CONFIG + '[operation]\naccess_log = "FOLDER/log"\n')
    assert "names no operation.admin_socket" in upgrades.fail(1)
