"""A lab is up when its services are ready; one that never gets so is named with its last words."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from lab.errors import HostError, RealiseError
from lab.realise import registry
from lab.realise.asking import wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

LISTEN = "import socket, time; time.sleep({wait}); s = socket.create_server(({address!r}, {port})); time.sleep(1000)"
BIND = (
    "import socket, time; time.sleep({wait}); s = socket.socket(type=socket.SOCK_DGRAM); s.bind(({address!r}, {port}));"
    "time.sleep(1000)"
)


def topology(**services: dict[str, Any]) -> dict[str, Any]:
    """A node `a` with the services, and a node `b` beside it."""
    return {
        "networks": {"lan": {"prefixes": ["192.0.2.0/24"]}},
        "nodes": {"a": {"links": {"lan": "192.0.2.1"}, "services": services}, "b": {"links": {"lan": "192.0.2.2"}}},
    }


def python(code: str, wait: float = 0.0, address: str = "", port: int = 80) -> list[str]:
    return ["python3", "-S", "-c", code.format(wait=wait, address=address, port=port)]


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_a_tcp_port_is_open_once_the_lab_is_up(up: Callable[..., Lab]) -> None:
    lab = up(topology(web={"run": python(LISTEN, wait=0.3), "ready": {"tcp": 80}}))
    lab["b"].connect(("a", 80)).close()
    assert lab.services()[0]["state"] == "ready"


def test_a_udp_port_is_bound_once_the_lab_is_up(up: Callable[..., Lab]) -> None:
    lab = up(topology(dns={"run": python(BIND, wait=0.3, port=53), "ready": {"udp": 53}}))
    assert lab["a"].is_bound(53, "udp")


def test_a_port_at_an_address_is_ready_at_that_address_only(up: Callable[..., Lab]) -> None:
    """It listens at the loopback first."""
    both = "import socket, time; s = [socket.create_server(('127.0.0.1', 80))]; time.sleep(0.3);"
    code = f"{both} s.append(socket.create_server(('192.0.2.1', 80))); time.sleep(1000)"
    lab = up(topology(web={"run": ["python3", "-S", "-c", code], "ready": {"tcp": "192.0.2.1:80"}}))
    lab["b"].connect(("192.0.2.1", 80)).close()


def test_a_port_in_another_node_can_be_waited_for(up: Callable[..., Lab]) -> None:
    written = topology(here={"run": "sleep 1000", "ready": {"tcp": 80, "node": "b"}})
    written["nodes"]["b"]["services"] = {"web": {"run": python(LISTEN, wait=0.3)}}
    assert up(written)["b"].is_bound(80)


def test_a_line_of_the_log_makes_ready(up: Callable[..., Lab]) -> None:
    script = "echo starting; sleep 0.2; echo listening on port 7; exec sleep 1000"
    lab = up(topology(web={"run": shell(script), "ready": {"log": "^listening on port [0-9]+$"}}))
    assert "listening on port 7" in lab["a"].log("web")


def test_a_command_that_succeeds_in_the_services_folder_makes_ready(up: Callable[..., Lab]) -> None:
    script = "sleep 0.2; touch flag; exec sleep 1000"
    lab = up(topology(web={"run": shell(script), "ready": {"run": ["test", "-e", "flag"]}}))
    assert lab["a"].run(["ls", "/run/lab/services/web"]).stdout == "flag\n"


def test_without_a_check_a_service_is_ready_once_started(up: Callable[..., Lab]) -> None:
    lab = up(topology(web={"run": "sleep 1000"}))
    (state,) = lab.services()
    assert (state["node"], state["service"], state["state"], state["restarts"]) == ("a", "web", "ready", 0)
    assert lab["a"].run(["cat", f"/proc/{state['pid']}/cmdline"]).stdout == "/usr/bin/sleep\x001000\x00"


@pytest.mark.parametrize(
    ("ready", "waited"),
    [
        ({"tcp": 81}, r"tcp \*:81 of a is bound; bound there: 192\.0\.2\.1 port 80"),
        ({"tcp": "127.0.0.1:80"}, r"tcp 127\.0\.0\.1:80 of a is bound; bound there: 192\.0\.2\.1 port 80"),
        ({"udp": 80}, r"udp \*:80 of a is bound; bound there: nothing"),
        ({"tcp": 80, "node": "b"}, r"tcp \*:80 of b is bound; bound there: nothing"),
        ({"log": "never said"}, "its log matches /never said/"),
        ({"run": ["test", "-e", "/nowhere"]}, "`test -e /nowhere` succeeds"),
    ],
)
def test_a_service_that_is_not_ready_in_time_is_named_with_its_last_words(
    up: Callable[..., Lab], name: str, ready: dict[str, Any], waited: str
) -> None:
    code = "print('my last words', flush=True);" + LISTEN.format(wait=0, address="192.0.2.1", port=80)
    web = {"run": ["python3", "-S", "-c", code], "ready": {**ready, "timeout": "5s"}}
    message = (
        f"service a/web was not ready within 5 s: waited until {waited}; "
        r"the last lines of its log:\n    my last words"
    )
    with pytest.raises(RealiseError, match=message):
        up(topology(web=web), name=name)
    assert name not in registry.names()


def test_a_silent_service_is_said_to_have_said_nothing(up: Callable[..., Lab]) -> None:
    with pytest.raises(RealiseError, match="its log is empty"):
        up(topology(web={"run": "sleep 1000", "ready": {"tcp": 80, "timeout": "50ms"}}))


@pytest.mark.parametrize(
    ("script", "how"),
    [("echo oh no; exit 3", "ended with exit code 3"), ("echo oh no; kill -9 $$", "was ended by SIGKILL")],
)
def test_a_service_that_ends_before_it_is_ready_ends_the_wait_at_once(
    up: Callable[..., Lab], script: str, how: str
) -> None:
    began = time.monotonic()
    with pytest.raises(RealiseError, match=rf"service a/web {how} before it was ready; .*log:\n    oh no"):
        up(topology(web={"run": shell(script), "ready": {"tcp": 80, "timeout": "300s"}}))
    assert time.monotonic() - began < 100


def test_only_the_last_lines_of_a_long_log_are_shown(up: Callable[..., Lab]) -> None:
    with pytest.raises(RealiseError) as caught:
        up(topology(web={"run": shell("seq 1 5000; exit 1"), "ready": {"tcp": 80}}))
    lines = str(caught.value).splitlines()
    assert lines[-1] == "    5000"
    assert len(lines) == 21


def test_a_program_that_the_host_lacks_is_named_before_anything_is_built(up: Callable[..., Lab]) -> None:
    with pytest.raises(HostError, match="service a/web: no program 'no-such-program' on this host; install it"):
        up(topology(web={"run": "no-such-program --serve"}))


def test_a_path_that_is_no_program_is_named(up: Callable[..., Lab]) -> None:
    with pytest.raises(RealiseError, match="service a/web: a: cannot run '/no/such': No such file"):
        up(topology(web={"run": "/no/such"}))


def test_a_ready_command_that_does_not_exist_is_named(up: Callable[..., Lab]) -> None:
    with pytest.raises(RealiseError, match="service a/web: its ready check: a: cannot run 'no-such-check'"):
        up(topology(web={"run": "sleep 1000", "ready": {"run": ["no-such-check"]}}))


def test_a_lab_that_is_to_be_kept_stays_for_inspection(up: Callable[..., Lab], name: str) -> None:
    web = {"run": shell("echo here I am; exec sleep 1000"), "ready": {"tcp": 80, "timeout": "5s"}}
    with pytest.raises(RealiseError, match="was not ready"):
        up(topology(web=web), name=name, keep_failed=True)
    with Lab(name) as kept:
        assert kept["a"].log("web") == "here I am\n"
        assert kept.services()[0]["state"] == "failed"
        assert kept["a"].run(["hostname"]).stdout == "a\n"
    assert name not in registry.names()


def test_without_services_the_nodes_come_up_alone(up: Callable[..., Lab]) -> None:
    lab = up(topology(web={"run": "sleep 1000", "ready": {"tcp": 80}}), services=False)
    assert lab.services() == []
    assert lab["b"].run(["ping", "-c", "1", "-w", "20", "a"]).returncode == 0


def test_services_start_after_those_that_they_name(up: Callable[..., Lab]) -> None:
    """Each writes the time: `second` after `first` was ready, `free` before, for `first` waits for it."""
    slow = shell("while [ ! -e /tmp/free ]; do sleep 0.01; done; date +%s%N; echo up; exec sleep 1000")
    written = topology(
        second={"run": shell("date +%s%N; exec sleep 1000"), "after": ["first"]},
        first={"run": slow, "ready": {"log": "^up$"}},
        free={"run": shell("date +%s%N; touch /tmp/free; exec sleep 1000")},
    )
    written["nodes"]["b"]["services"] = {
        "third": {"run": shell("date +%s%N; exec sleep 1000"), "after": ["a/second", "a/first"]}
    }
    lab = up(written)
    states = lab.services()
    wait_until(lambda: all("\n" in lab.log(s["node"], s["service"]) for s in states), 30, "all have said when")
    when = {s["service"]: int(lab.log(s["node"], s["service"]).split()[0]) for s in states}
    assert when["free"] < when["first"] < min(when["second"], when["third"])
    pids = {s["service"]: s["pid"] for s in states}  # `second` is ready as soon as it is started
    assert pids["second"] < pids["third"]


def test_progress_names_each_phase_and_what_is_waited_for(up: Callable[..., Lab]) -> None:
    told: list[tuple[str, int, int, str]] = []
    web = {"run": shell("sleep 0.2; echo up; exec sleep 1000"), "ready": {"log": "up"}}
    up(topology(web=web), progress=lambda *step: told.append(step))
    phases = list(dict.fromkeys(phase for phase, *_ in told))
    assert phases == ["names", "nodes", "links", "addresses", "services"]
    assert ("services", 0, 1, "a/web") in told
    assert told[-1] == ("services", 1, 1, "")
