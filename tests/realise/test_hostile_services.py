"""Services that end oddly, leave children behind, or find their port taken: said as it is, and never called ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from lab.errors import RealiseError
from lab.realise.asking import wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

LISTEN = "import socket, time; s = socket.create_server(('', 80)); time.sleep({wait})"
# Holds the port; whoever fails to get it stays, so that its state alone cannot tell.
STUBBORN = """
import socket, time
try:
    s = socket.create_server(("", 80))
except OSError as error:
    print(error, flush=True)
time.sleep(1000)
"""
UDP_STUBBORN = STUBBORN.replace(
    's = socket.create_server(("", 80))', 's = socket.socket(type=socket.SOCK_DGRAM); s.bind(("", 80))'
)


def topology(**services: dict[str, Any]) -> dict[str, Any]:
    return {
        "networks": {"lan": {"prefixes": ["192.0.2.0/24"]}},
        "nodes": {"a": {"links": {"lan": "192.0.2.1"}, "services": services}},
    }


def python(code: str) -> list[str]:
    return ["python3", "-S", "-c", code]


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def state(lab: Lab, service: str) -> dict[str, Any]:
    (found,) = [each for each in lab.services() if each["service"] == service]
    return found


# Signals: 35 is SIGRTMIN+1 where the C library keeps two of its own (signal(7)).


@pytest.mark.parametrize(
    ("number", "name"), [(35, r"(signal 35|SIGRTMIN\+1)"), (50, r"(signal 50|SIG)"), (64, "SIG"), (11, "SIGSEGV")]
)
@pytest.mark.parametrize("ready", [{"tcp": 80}, {"log": "never"}])
def test_a_service_ended_by_any_signal_before_it_is_ready_is_named_with_it(
    up: Callable[..., Lab], number: int, name: str, ready: dict[str, Any]
) -> None:
    written = topology(x={"run": python(f"import os; os.kill(os.getpid(), {number})"), "ready": ready})
    with pytest.raises(RealiseError, match=f"service a/x was ended by {name}") as caught:
        up(written)
    assert "defect" not in str(caught.value)


def test_a_service_ended_by_a_realtime_signal_later_does_not_end_the_lab(up: Callable[..., Lab]) -> None:
    lab = up(topology(x={"run": "sleep 1000", "restart": "always"}, y={"run": "sleep 1000"}))
    for service in ("x", "y"):
        lab["a"].run(["/bin/kill", "-35", str(state(lab, service)["pid"])], check=True)
    wait_until(lambda: state(lab, "x")["restarts"] == 1, 30, "it was started again")
    wait_until(lambda: state(lab, "y")["exit_code"] == -35, 30, "the other's end was seen")


def test_a_service_started_again_finds_the_port_free_that_a_child_of_its_first_life_held(
    up: Callable[..., Lab],
) -> None:
    listens = LISTEN.format(wait=1000).replace("time.sleep", "open('listens', 'w'); time.sleep")
    script = (
        f'echo life; rm -f listens; python3 -S -c "{listens}" & '
        "while [ ! -e listens ]; do sleep 0.01; done; sleep 0.5; exit 1"
    )
    lab = up(topology(web={"run": shell(script), "restart": "always", "ready": {"tcp": 80, "timeout": "60s"}}))
    wait_until(lambda: state(lab, "web")["restarts"] >= 3, 60, "it was started again three times")
    assert lab["a"].log("web").count("life") >= 3
    assert "in use" not in lab["a"].log("web")
    wait_until(lambda: len(lab["a"].run(["pgrep", "-x", "python3"]).stdout.split()) <= 1, 30, "those before have ended")


def test_a_service_that_ends_for_good_leaves_no_child(up: Callable[..., Lab]) -> None:
    lab = up(topology(x={"run": shell("sleep 300 & sleep 300 & sleep 0.3; exit 0")}))
    wait_until(lambda: state(lab, "x")["state"] == "ended", 30, "it has ended")
    wait_until(lambda: lab["a"].run(["pgrep", "-x", "sleep"]).stdout == "", 30, "its children have ended")


@pytest.mark.parametrize(("protocol", "code"), [("tcp", STUBBORN), ("udp", UDP_STUBBORN)])
def test_a_port_that_another_service_holds_makes_nobody_ready(up: Callable[..., Lab], protocol: str, code: str) -> None:
    with pytest.raises(RealiseError, match="service a/two") as caught:
        up(
            topology(
                one={"run": python(code), "ready": {protocol: 80}},
                two={"run": python(code), "ready": {protocol: 80, "timeout": "5s"}, "after": ["one"]},
            )
        )
    assert "in use" in str(caught.value)


@pytest.mark.parametrize("order", [["one", "two"], ["two", "one"]])
def test_a_service_that_ends_because_its_port_is_taken_is_named(up: Callable[..., Lab], order: list[str]) -> None:
    services: dict[str, Any] = {
        "one": {"run": python(LISTEN.format(wait=1000)), "ready": {"tcp": 80}},
        "two": {"run": python(LISTEN.format(wait=1000)), "ready": {"tcp": 80}, "after": ["one"]},
    }
    with pytest.raises(RealiseError, match=r"service a/two ended with exit code 1 before it was ready"):
        up(topology(**{name: services[name] for name in order}))


def test_a_service_that_restarts_in_vain_for_its_port_is_not_ready(up: Callable[..., Lab]) -> None:
    two = {"run": python(LISTEN.format(wait=1000)), "restart": "always", "after": ["one"]}
    with pytest.raises(RealiseError, match="service a/two"):
        up(
            topology(
                one={"run": python(LISTEN.format(wait=1000)), "ready": {"tcp": 80}},
                two=two | {"ready": {"tcp": 80, "timeout": "2s"}},
            )
        )


def test_a_port_that_a_child_of_the_service_opens_makes_it_ready(up: Callable[..., Lab]) -> None:
    """Servers with workers, and shells that start a server, are one service."""
    script = f'python3 -S -c "{LISTEN.format(wait=1000)}" & wait'
    lab = up(topology(web={"run": shell(script), "ready": {"tcp": 80, "timeout": "10s"}}))
    assert state(lab, "web")["state"] == "ready"
    assert lab["a"].is_bound(80)


def test_a_service_is_not_ready_again_by_the_port_of_another(up: Callable[..., Lab]) -> None:
    """Its second life fails to bind, for a stranger was faster."""
    script = 'if [ -e dead ]; then echo again; exec sleep 1000; fi; touch dead; exec python3 -S -c "{}"'
    script = script.replace("{}", LISTEN.format(wait=1000))
    lab = up(topology(web={"run": shell(script), "restart": "always", "ready": {"tcp": 80}}))
    assert state(lab, "web")["state"] == "ready"
    lab.signal_service("a", "web", 9)

    def taken() -> bool:
        try:
            held.append(lab["a"].listen(80))
        except OSError:
            return False
        return True

    held: list[Any] = []
    wait_until(taken, 30, "the port is free")
    wait_until(lambda: lab["a"].log("web").count("again") == 1, 30, "it was started again")
    deadline = time.monotonic() + 0.5  # many times as long as the supervisor waits between two looks
    while time.monotonic() < deadline:
        assert state(lab, "web")["state"] == "starting"
    held[0].close()


# In its first life it waits for the question, then crashes; the answer comes when its second life has begun.
TWO_LIVES = """
echo life >> lives
[ $(wc -l < lives) -gt 1 ] && exec sleep 1000
while [ ! -e asked ]; do sleep 0.01; done
exit 1
"""
LATE_ANSWER = """
if [ -e asked ]; then touch asked-again; exit 0; fi
touch asked
while [ $(wc -l < lives) -lt 2 ]; do sleep 0.01; done
sleep 0.2
exit 0
"""


def test_an_answer_about_an_earlier_life_does_not_make_the_next_ready(up: Callable[..., Lab]) -> None:
    ready = {"run": shell(LATE_ANSWER)}
    lab = up(topology(x={"run": shell(TWO_LIVES), "restart": "always", "ready": ready}))
    assert state(lab, "x")["restarts"] == 1
    assert "asked-again" in lab["a"].run(["ls", "/run/lab/services/x"]).stdout.split()


def test_a_ready_command_that_hangs_is_asked_again(up: Callable[..., Lab]) -> None:
    hangs_once = "[ -e asked ] && exit 0; touch asked; exec sleep 1000"
    lab = up(topology(x={"run": "sleep 2000", "ready": {"run": shell(hangs_once), "timeout": "30s"}}))
    assert state(lab, "x")["state"] == "ready"
    wait_until(lambda: len(lab["a"].run(["pgrep", "-x", "sleep"]).stdout.split()) == 1, 30, "the hanging one has ended")


def test_a_ready_command_that_always_hangs_is_no_excuse(up: Callable[..., Lab]) -> None:
    began = time.monotonic()
    with pytest.raises(RealiseError, match="service a/x was not ready within 1 s"):
        up(topology(x={"run": "sleep 2000", "ready": {"run": "sleep 1000", "timeout": "1s"}}))
    assert time.monotonic() - began < 100


def test_a_ready_command_leaves_no_child(up: Callable[..., Lab]) -> None:
    leaving = "sleep 3000 & exit 0"
    lab = up(topology(x={"run": "sleep 2000", "ready": {"run": shell(leaving)}}))
    wait_until(lambda: len(lab["a"].run(["pgrep", "-x", "sleep"]).stdout.split()) == 1, 30, "its child has ended")


@pytest.mark.parametrize("milliseconds", [0, 20, 40, 60, 80, 100])
@pytest.mark.parametrize("first", ["dies", "slow"])
def test_a_service_without_ready_check_that_fails_while_others_start_fails_the_lab(
    up: Callable[..., Lab], milliseconds: int, first: str
) -> None:
    services: dict[str, Any] = {
        "dies": {"run": shell(f"echo last words; sleep {milliseconds / 1000}; echo $$ > /tmp/dying; exit 1")},
        "slow": {
            # Its process is there until the supervisor has seen its end.
            "run": shell(
                "while [ ! -s /tmp/dying ]; do sleep 0.01; done; "
                "while [ -e /proc/$(cat /tmp/dying) ]; do sleep 0.01; done; "
                f'sleep 0.1; exec python3 -S -c "{LISTEN.format(wait=1000)}"'
            ),
            "ready": {"tcp": 80},
        },
    }
    order = sorted(services, key=lambda name: name != first)
    with pytest.raises(RealiseError, match=r"service a/dies ended with exit code 1(.|\n)*last words"):
        up(topology(**{name: services[name] for name in order}))


@pytest.mark.parametrize("code", [0, 1])
def test_a_service_without_ready_check_that_restarts_may_end_while_others_start(
    up: Callable[..., Lab], code: int
) -> None:
    lab = up(
        topology(
            again={"run": shell(f"[ -e done ] && exec sleep 1000; touch done; sleep 0.05; exit {code}")}
            | {"restart": "always"},
            slow={"run": shell(f'sleep 0.5; exec python3 -S -c "{LISTEN.format(wait=1000)}"'), "ready": {"tcp": 80}},
        )
    )
    wait_until(lambda: has_begun_again(lab), 30, "it runs again")


def has_begun_again(lab: Lab) -> bool:
    now = state(lab, "again")
    return (now["state"], now["restarts"]) == ("ready", 1)
