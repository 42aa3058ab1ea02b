"""Machines and programs that die, hang or start anew: what a client meets, what the kernel shows, and how it heals."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from lab.errors import UsageError
from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.realise.conftest import Up

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

# Answers each connection with a line, and says in its log what it was told by signals.
SERVER = """
import signal, socket, sys
def end(*_):
    print("asked to end", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
server = socket.create_server(("", int(sys.argv[1])))
print("up", flush=True)
while True:
    client, _ = server.accept()
    client.sendall(b"hello\\n")
    client.close()
"""
TOPOLOGY: dict[str, Any] = {
    "networks": {"lan": {"prefixes": ["192.0.2.0/24", "2001:db8::/64"]}, "far": {"prefixes": ["198.51.100.0/24"]}},
    "nodes": {
        "server": {
            "links": {"lan": "192.0.2.10"},
            "services": {
                "web": {
                    "run": ["python3", "-uc", SERVER, "80"],
                    "restart": "always",
                    "ready": {"tcp": 80},
                },
                "later": {"run": ["python3", "-uc", SERVER, "81"], "ready": {"tcp": 81}, "after": ["web"]},
                "family": {"run": ["sh", "-c", "setsid sleep 7001 & sleep 7002 & wait"], "restart": "always"},
                "stubborn": {"run": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]},
                "flapping": {"run": ["sleep", "7003"], "restart": "always"},
            },
        },
        "client": {"links": {"lan": "192.0.2.20"}},
        "router": {
            "role": "router",
            "links": {"lan": "192.0.2.1", "far": "198.51.100.1"},
            "nat": {"outside": "far"},
            "services": {"sleep": {"run": "sleep 7004"}},
        },
        "peer": {"links": {"far": "198.51.100.10"}},
    },
}
WEB = ("192.0.2.10", 80)
LATER = ("192.0.2.10", 81)


@pytest.fixture(scope="module")
def shared(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture
def lab(shared: Lab) -> Any:
    """The lab without a fault, and left so."""
    assert shared.fault.in_force() == []
    yield shared
    shared.heal()


def state(lab: Lab, name: str) -> dict[str, Any]:
    (found,) = [each for each in lab.services() if f"{each['node']}/{each['service']}" == name]
    return found


def greeting(lab: Lab, address: tuple[str, int] = WEB, timeout: float = 30) -> bytes:
    with lab["client"].connect(address, timeout=timeout) as client:
        return client.recv(100)


def processes(lab: Lab, *arguments: str) -> dict[int, str]:
    """The processes of the lab with these arguments and their states, as its other nodes see them (ps(1))."""
    told = lab["client"].run(["ps", "-eo", "pid=,stat=,args="], check=True).stdout
    found = {}
    for line in told.splitlines():
        pid, status, command = line.split(None, 2)
        if command.rpartition("/")[2] == " ".join(arguments) and not status.startswith("Z"):
            found[int(pid)] = status[0]
    return found


def await_running(lab: Lab, *lengths: str) -> None:
    """Wait until one process sleeps for each: a shell that is ready has not started its own yet."""
    wait_until(lambda: all(len(processes(lab, "sleep", each)) == 1 for each in lengths), 30, f"sleep {lengths}")


def pings(lab: Lab, to: str = WEB[0], source: str = "client") -> bool:
    """Whether an answer comes, however busy this machine is."""
    return lab[source].run(["ping", "-c1", "-w20", to]).returncode == 0


def is_unanswered(lab: Lab, to: str = WEB[0], source: str = "client") -> bool:
    return lab[source].run(["ping", "-c1", "-W0.3", to]).returncode != 0


def link(lab: Lab, node: str, what: str) -> int:
    return int(lab[node].read(f"/sys/class/net/lan/{what}"))


def test_a_killed_service_is_gone_and_stays_so_until_healed(lab: Lab) -> None:
    before = state(lab, "server/web")["pid"]
    with lab.fault.kill("server/web") as fault:
        assert fault.note == "ended by SIGKILL; its `restart: always` is held back"
        with pytest.raises(ConnectionRefusedError):
            greeting(lab)
        ends = state(lab, "server/flapping")["restarts"]
        lab.signal_service("server", "flapping", signal.SIGKILL)  # that one starts again: the time for it has passed
        wait_until(lambda: state(lab, "server/flapping")["restarts"] > ends, 30, "another service is back")
        wait_until(lambda: state(lab, "server/web")["pid"] is None, 30, "it is known to have ended")
        assert (state(lab, "server/web")["state"], state(lab, "server/web")["exit_code"]) == ("held", -9)
        assert state(lab, "server/web")["restarts"] == 0
    assert state(lab, "server/web")["state"] == "ready"
    assert state(lab, "server/web")["pid"] != before
    assert greeting(lab) == b"hello\n"


def test_all_processes_of_a_killed_service_end(lab: Lab) -> None:
    await_running(lab, "7001", "7002")
    with lab.fault.kill("server/family"):
        assert processes(lab, "sleep", "7001") == processes(lab, "sleep", "7002") == {}
    await_running(lab, "7001", "7002")


def test_a_killed_node_has_no_carrier_no_process_and_no_socket(lab: Lab) -> None:
    changes = link(lab, "server", "carrier_changes")
    theirs = lab["server"].listen(7000)
    ours = lab["client"].connect(("192.0.2.10", 7000))
    sleeper = lab["server"].start(["sleep", "7005"])
    await_running(lab, "7005", "7003")
    with lab.fault.kill("server"):
        assert link(lab, "server", "carrier") == 0
        assert processes(lab, "sleep", "7005") == processes(lab, "sleep", "7003") == {}
        assert is_unanswered(lab)
        assert {each["state"] for each in lab.services() if each["node"] == "server"} == {"held"}
        with pytest.raises(UsageError, match="node server is switched off"):
            lab["server"].run(["true"])
        ours.sendall(b"is anybody there?")  # nobody says no
        ours.settimeout(0.3)
        with pytest.raises(TimeoutError):
            ours.recv(1)
    assert sleeper.wait(30) == -signal.SIGKILL
    sleeper.close()
    assert link(lab, "server", "carrier") == 1
    assert link(lab, "server", "carrier_changes") == changes + 2
    assert greeting(lab) == greeting(lab, LATER) == b"hello\n"
    ours.settimeout(60)
    with pytest.raises(ConnectionResetError):  # the machine that was booted does not know the connection
        ours.recv(1)
    theirs.close()
    ours.close()


def test_a_booted_node_starts_its_services_in_order(lab: Lab) -> None:
    lab.fault.kill("server")
    lab.heal()
    starts = [line for line in lab.log("server", "later").splitlines() if line == "up"]
    assert len(starts) >= 2
    assert {each["state"] for each in lab.services()} == {"ready"}


def test_a_booted_router_has_forgotten_its_flows(lab: Lab) -> None:
    with lab["peer"].udp(7006) as server, lab["client"].udp() as client:
        lab["client"].run(["ip", "route", "replace", "198.51.100.0/24", "via", "192.0.2.1"], check=True)
        client.sendto(b"?", ("198.51.100.10", 7006))
        server.recv(10)
        assert "dport=7006" in flows(lab)
        with lab.fault.kill("router"):
            pass
        assert "dport=7006" not in flows(lab)


def flows(lab: Lab) -> str:
    return lab["router"].run(["conntrack", "-L"], check=True).stdout


def test_a_service_of_a_node_that_was_killed_apart_stays_down_when_the_node_boots(lab: Lab) -> None:
    service = lab.fault.kill("server/later")
    with lab.fault.kill("server"):
        pass
    assert state(lab, "server/later")["state"] == "held"
    assert greeting(lab) == b"hello\n"
    service.heal()
    assert greeting(lab, LATER) == b"hello\n"


def test_a_paused_service_takes_connections_and_answers_when_healed(lab: Lab) -> None:
    pid = state(lab, "server/web")["pid"]
    with lab.fault.pause("server/web"), lab["client"].connect(WEB, timeout=30) as client:
        wait_until(lambda: status(lab, pid) == "T", 30, "it stands still")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        lab.heal()
        client.settimeout(30)
        assert client.recv(100) == b"hello\n"
    wait_until(lambda: status(lab, pid) != "T", 30, "it goes on")
    assert state(lab, "server/web")["pid"] == pid


def status(lab: Lab, pid: int) -> str:
    return lab["client"].run(["ps", "-o", "stat=", "-p", str(pid)], check=True).stdout[0]


def test_all_processes_of_a_paused_service_stop(lab: Lab) -> None:
    await_running(lab, "7001", "7002")
    with lab.fault.pause("server/family"):
        wait_until(lambda: states(lab, "7001") == states(lab, "7002") == {"T"}, 30, "they stand still")
    wait_until(lambda: states(lab, "7001") == states(lab, "7002") == {"S"}, 30, "they go on")


def states(lab: Lab, length: str) -> set[str]:
    """Of the processes that sleep so long; for a moment one that goes on is said to run."""
    return set(processes(lab, "sleep", length).values())


def test_a_paused_node_is_deaf_keeps_its_carrier_and_its_connections(lab: Lab) -> None:
    changes = link(lab, "server", "carrier_changes")
    with lab["server"].listen(7007) as listener, lab["client"].connect(("192.0.2.10", 7007)) as ours:
        theirs, _ = listener.accept()
        lab["client"].run(["ip", "neigh", "flush", "dev", "lan"], check=True)
        await_running(lab, "7003")
        with lab.fault.pause("server"):
            wait_until(lambda: states(lab, "7003") == {"T"}, 30, "its processes stand still")
            assert is_unanswered(lab)
            assert is_unanswered(lab, lab["server"].address(version=6))
            neighbour = lab["client"].run(["ip", "neigh", "show", WEB[0]]).stdout
            assert "lladdr" not in neighbour  # not even ARP is answered
            assert link(lab, "server", "carrier_changes") == changes
            ours.sendall(b"still there")
            with pytest.raises(UsageError, match="node server stands still"):
                lab["server"].run(["true"])
        wait_until(lambda: states(lab, "7003") == {"S"}, 30, "they go on")
        theirs.settimeout(60)
        assert theirs.recv(100) == b"still there"  # the client's kernel has sent it again
        theirs.close()
    assert pings(lab)
    assert "lab_paused" not in lab["server"].run(["nft", "list", "ruleset"], check=True).stdout


def test_a_restarted_service_is_asked_to_end_and_ready_when_the_call_returns(lab: Lab) -> None:
    before, asked = state(lab, "server/web"), lab.log("server", "web").count("asked to end")
    lab.fault.restart("server/web")
    assert greeting(lab) == b"hello\n"
    assert state(lab, "server/web")["pid"] != before["pid"]
    assert lab.log("server", "web").count("asked to end") == asked + 1
    assert lab.fault.in_force() == []


def test_a_service_that_will_not_end_is_killed(lab: Lab) -> None:
    before = state(lab, "server/stubborn")["pid"]
    lab.fault.restart("server/stubborn")
    assert state(lab, "server/stubborn")["pid"] not in (before, None)


def test_a_restarted_node_loses_its_carrier_and_is_ready_when_the_call_returns(lab: Lab) -> None:
    pid, changes = state(lab, "router/sleep")["pid"], link(lab, "router", "carrier_changes")
    lab.fault.restart("router")
    assert link(lab, "router", "carrier_changes") == changes + 2
    assert state(lab, "router/sleep")["state"] == "ready"
    assert state(lab, "router/sleep")["pid"] != pid
    assert pings(lab, "192.0.2.1")


@pytest.mark.parametrize("kind", ["kill", "pause"])
@pytest.mark.parametrize(("target", "service"), [("router", "router/sleep"), ("router/sleep", "router/sleep")])
def test_to_restart_what_is_killed_or_paused_heals_it(lab: Lab, kind: str, target: str, service: str) -> None:
    pid = state(lab, service)["pid"]
    getattr(lab.fault, kind)(target)
    lab.fault.restart(target)
    assert lab.fault.in_force() == []
    assert state(lab, service)["state"] == "ready"
    assert state(lab, service)["pid"] != pid
    assert pings(lab, "192.0.2.1")


@pytest.mark.parametrize("target", ["router", "router/sleep"])
def test_a_fault_with_a_time_heals_by_itself(lab: Lab, target: str) -> None:
    fault = lab.fault.kill(target, seconds=10)
    assert state(lab, "router/sleep")["state"] == "held"
    (told,) = lab.fault.in_force()
    assert (told["number"], told["until"]) == (fault.number, pytest.approx(told["since"] + 10))
    wait_until(lambda: not lab.fault.in_force(), 60, "it has healed")
    wait_until(lambda: state(lab, "router/sleep")["state"] == "ready", 30, "it runs again")


def test_the_end_of_a_block_leaves_a_fault_alone_that_has_healed(lab: Lab) -> None:
    with lab.fault.kill("router/sleep"):
        lab.heal()
    assert state(lab, "router/sleep")["state"] == "ready"


def test_faults_in_force_are_told_in_order_with_what_they_did(lab: Lab) -> None:
    first, second = lab.fault.kill("router/sleep"), lab.fault.pause("server")
    told = lab.fault.in_force()
    assert [(each["number"], each["kind"], each["targets"]) for each in told] == [
        (first.number, "kill", ["router/sleep"]),
        (second.number, "pause", ["server"]),
    ]
    assert all(each["note"] and each["since"] > 0 and each["until"] is None and not each["trouble"] for each in told)


def test_a_fault_outlives_the_client_that_asked_for_it(lab: Lab) -> None:
    other = Lab(lab.name)
    other.fault.kill("router/sleep")
    other.close()
    assert state(lab, "router/sleep")["state"] == "held"


@pytest.mark.parametrize(
    ("kind", "target", "why"),
    [
        ("kill", "servr", "no node is called 'servr'; did you mean 'server'?; there are: server, client, router, peer"),
        ("pause", "server/wev", "no service of server is called 'wev'; did you mean 'web'?"),
        ("restart", "client/web", "no service of client is called 'web'; there are: none"),
        ("kill", "", "no node is called ''"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(lab: Lab, kind: str, target: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        getattr(lab.fault, kind)(target)
    assert why in str(caught.value)


def test_what_makes_no_sense_is_refused_and_changes_nothing(lab: Lab) -> None:
    fault = lab.fault.kill("server/web")
    with pytest.raises(UsageError, match=rf"kill server/web is in force already; `lab fault heal {fault.number}` ends"):
        lab.fault.kill("server/web")
    with pytest.raises(UsageError, match="service server/web is not running: it is held"):
        lab.fault.pause("server/web")
    with pytest.raises(UsageError, match=f"no fault 9999 is in force; there are {fault.number}"):
        lab.ask({"ask": "heal", "fault": 9999})
    with pytest.raises(UsageError, match="restart is over at once"):
        lab.ask({"ask": "fault", "kind": "restart", "targets": ["server"], "seconds": 1})
    with pytest.raises(UsageError, match="-1 s; a fault lasts for more than 0"):
        lab.fault.kill("client", seconds=-1)
    fault.heal()
    with pytest.raises(UsageError, match=r"no fault .* is in force; none is"):
        fault.heal()
    with lab.fault.kill("server"), pytest.raises(UsageError, match="node server is switched off"):
        lab.fault.pause("server/web")
    assert greeting(lab) == b"hello\n"


def test_a_lab_that_is_not_ready_yet_has_no_faults_yet(tmp_path: Any, name: str) -> None:
    file = tmp_path / "slow.yaml"
    file.write_text("nodes: {a: {services: {slow: {run: sleep 1000, ready: {log: never, timeout: 100s}}}}}\n")
    starter = subprocess.Popen([sys.executable, "-m", "lab.cli.main", "up", "-q", "--name", name, str(file)])
    try:
        wait_until(lambda: _answers(name), 60, "the supervisor answers")
        lab = Lab(name)
        with pytest.raises(UsageError, match="the lab is still starting"):
            lab.fault.kill("a")
        lab.close()
    finally:
        starter.terminate()
        starter.wait(60)


def _answers(name: str) -> bool:
    try:
        Lab(name).close()
    except (UsageError, OSError):
        return False
    return True


def test_sockets_of_the_test_are_none_of_a_service(lab: Lab) -> None:
    """What `kill` of a service ends is the service: the test's own sockets in the node go on."""
    address = ("192.0.2.10", 7008)
    with lab["server"].listen(7008) as listener, lab.fault.kill("server/web"), lab["client"].connect(address) as client:
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"x")
            assert client.recv(1) == b"x"
