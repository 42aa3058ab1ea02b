"""What happens when a service ends while the lab lives: never, on failure, always; later and later."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from lab.errors import UsageError
from lab.realise.asking import wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

# Tells its starts; ends as told by a file that the test writes.
SCRIPT = "date +%s%N; while [ ! -e end ]; do sleep 0.01; done; code=$(cat end); rm end; exit $code"
# Lives once, then ends at once; its ready check holds in its first life only.
CRASHING = "date +%s%N; if [ -e dead ]; then exit 1; fi; touch dead well; exec sleep 1000"


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    services: dict[str, Any] = {
        policy: {"run": ["sh", "-c", SCRIPT], "restart": policy} for policy in ("never", "on-failure", "always")
    }
    services["default"] = {"run": ["sh", "-c", SCRIPT]}
    services["crashing"] = {
        "run": ["sh", "-c", CRASHING],
        "restart": "always",
        "ready": {"run": ["test", "-e", "well"]},
    }
    services["talking"] = {
        "run": ["sh", "-c", "sleep 0.3; [ -e mute ] && echo not yet || echo up; exec sleep 1000"],
        "restart": "always",
        "ready": {"log": "^up$"},
    }
    services["flapping"] = {
        "run": ["sh", "-c", "date +%s%N; while [ -e well ]; do sleep 0.01; done; sleep 0.3"],
        "files": {"well": {"text": ""}},
        "restart": "always",
    }
    services["other"] = {"run": "sleep 1000", "restart": "never"}
    return module_up(
        {
            "networks": {"lan": {"prefixes": ["192.0.2.0/24"]}},
            "nodes": {"a": {"links": {"lan": "auto"}, "services": services}},
        }
    )


def state(lab: Lab, service: str) -> dict[str, Any]:
    (found,) = [each for each in lab.services() if each["service"] == service]
    return found


def end(lab: Lab, service: str, code: int) -> dict[str, Any]:
    """Let the service end with a code; its state once it has ended for good or runs again."""
    restarts = state(lab, service)["restarts"]
    lab["a"].run(["sh", "-c", f"echo {code} > end.new; mv end.new end"], cwd=f"/run/lab/services/{service}", check=True)

    def settled() -> bool:
        now = state(lab, service)
        return bool(now["state"] == "ended" or (now["restarts"] > restarts and now["state"] == "ready"))

    wait_until(settled, 60, f"{service} has settled")
    return state(lab, service)


@pytest.mark.parametrize("service", ["never", "default"])
def test_never_leaves_it_ended_with_its_exit_code(lab: Lab, service: str) -> None:
    ended = end(lab, service, 5)
    assert (ended["state"], ended["exit_code"], ended["restarts"], ended["pid"]) == ("ended", 5, 0, None)


def test_on_failure_starts_again_after_failure_and_not_after_success(lab: Lab) -> None:
    first = state(lab, "on-failure")["pid"]
    again = end(lab, "on-failure", 1)
    assert (again["state"], again["restarts"]) == ("ready", 1)
    assert again["pid"] not in (first, None)
    ended = end(lab, "on-failure", 0)
    assert (ended["state"], ended["exit_code"], ended["restarts"]) == ("ended", 0, 1)


@pytest.mark.parametrize("code", [0, 1])
def test_always_starts_again_after_success_and_failure(lab: Lab, code: int) -> None:
    before = state(lab, "always")["restarts"]
    assert end(lab, "always", code)["restarts"] == before + 1


def test_a_service_that_is_killed_starts_again(lab: Lab) -> None:
    before = state(lab, "always")
    lab.signal_service("a", "always", signal.SIGKILL)
    wait_until(lambda: state(lab, "always")["pid"] not in (before["pid"], None), 30, "it runs again")
    assert state(lab, "always")["restarts"] == before["restarts"] + 1


def test_a_service_that_keeps_ending_is_started_later_and_later(lab: Lab) -> None:
    lab["a"].run(["rm", "/run/lab/services/crashing/well"], check=True)
    lab.signal_service("a", "crashing", signal.SIGKILL)
    wait_until(lambda: state(lab, "crashing")["restarts"] >= 4, 60, "it was started again four times")
    wait_until(lambda: len(lab["a"].log("crashing").split()) >= 5, 30, "it said so")
    starts = [int(line) for line in lab["a"].log("crashing").split()]
    pauses = [(later - earlier) / 1e9 for earlier, later in pairwise(starts[1:5])]
    assert all(pause >= at_least for pause, at_least in zip(pauses, (0.2, 0.4, 0.8), strict=True)), pauses


def test_a_line_of_an_earlier_life_does_not_make_a_service_ready(lab: Lab) -> None:
    lab["a"].run(["touch", "/run/lab/services/talking/mute"], check=True)
    lab.signal_service("a", "talking", signal.SIGKILL)
    wait_until(lambda: lab["a"].log("talking") == "up\nnot yet\n", 30, "its second life has been looked at")
    assert state(lab, "talking")["state"] == "starting"


def test_a_service_that_is_ready_but_for_a_moment_is_started_later_and_later(lab: Lab) -> None:
    lab["a"].run(["rm", "/run/lab/services/flapping/well"], check=True)
    wait_until(lambda: state(lab, "flapping")["restarts"] >= 5, 60, "it was started again five times")
    starts = [int(line) for line in lab["a"].log("flapping").split()]
    pauses = [(later - earlier) / 1e9 for earlier, later in pairwise(starts[1:5])]
    assert all(pause >= at_least for pause, at_least in zip(pauses, (0.5, 0.7, 1.1), strict=True)), pauses


def test_a_service_that_ends_takes_nothing_else_with_it(lab: Lab) -> None:
    assert state(lab, "other")["state"] == "ready"
    assert state(lab, "other")["restarts"] == 0


def test_a_signal_to_what_does_not_run_is_refused(lab: Lab) -> None:
    if state(lab, "never")["state"] == "ready":
        end(lab, "never", 5)
    with pytest.raises(UsageError, match="service a/never is not running"):
        lab.signal_service("a", "never", signal.SIGTERM)
    with pytest.raises(UsageError, match="no service 'a/nothing' in this lab"):
        lab.signal_service("a", "nothing", signal.SIGTERM)


def test_the_log_of_a_service_that_does_not_exist_is_refused(lab: Lab) -> None:
    with pytest.raises(UsageError, match=r"no service 'a/nothing' in this lab; it has a/always"):
        lab.log("a", "nothing")


def test_a_service_that_ends_as_soon_as_it_is_ready_leaves_the_lab_up(up: Callable[..., Lab]) -> None:
    """Its end and the lab's release come at the same time, in any order."""
    once = {"run": ["sh", "-c", "echo done"], "ready": {"log": "done"}}
    topology = {
        "networks": {"lan": {"prefixes": ["192.0.2.0/24"]}},
        "nodes": {"a": {"links": {"lan": "auto"}, "services": {"once": once}}},
    }
    for _ in range(4):
        found = up(topology)
        wait_until(lambda lab=found: state(lab, "once")["state"] == "ended", 30, "it has ended")  # type: ignore[misc]
        assert found["a"].log("once") == "done\n"
