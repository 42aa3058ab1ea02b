"""Whether `lab ps` and `lab up` tell services that did their work from those that broke, in real labs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lab.cli.service_health import MOST_RESTARTS, health, troubles


def topology(run: str, **more: Any) -> dict[str, Any]:
    return {"nodes": {"a": {"services": {"job": {"run": ["sh", "-c", run], **more}}}}}


def awaited(lab: Any, name: str, wanted: str) -> dict[str, Any]:
    """The lab's entry in `lab ps` once its state is the wanted one."""
    deadline = time.monotonic() + 60
    while True:
        found = {each["name"]: each for each in json.loads(lab("ps", "--json", code=0).stdout)}
        if found[name]["state"] == wanted:
            return dict(found[name])
        assert time.monotonic() < deadline, found[name]


def test_a_job_that_did_its_work_leaves_the_lab_ready(lab: Any, up: Any) -> None:
    name = up(topology("exit 0"))
    deadline = time.monotonic() + 60
    while json.loads(lab("inspect", "--json", "--lab", name).stdout)["states"][0]["state"] != "ended":
        assert time.monotonic() < deadline
    found = awaited(lab, name, "ready")
    assert (found["services_ready"], found["services"]) == (1, 1)


@pytest.mark.parametrize(
    "service",
    [
        topology("read -r x < /tmp/go; exit 4"),  # no ready check, but not 0
        topology("echo here; read -r x < /tmp/go; exit 0", ready={"log": "here"}),  # 0, but it was to stay
    ],
)
def test_a_service_that_broke_degrades_the_lab(lab: Any, up: Any, service: dict[str, Any]) -> None:
    service["nodes"]["a"]["services"]["job"]["run"][2] = (
        "mkfifo /tmp/go; " + service["nodes"]["a"]["services"]["job"]["run"][2]
    )
    name = up(service)
    awaited(lab, name, "ready")
    lab("exec", "--lab", name, "a", "--", "sh", "-c", "until test -p /tmp/go; do :; done; echo > /tmp/go", code=0)
    assert awaited(lab, name, "degraded")["services_ready"] == 0


def test_a_service_that_starts_again_and_again_degrades_the_lab(lab: Any, up: Any) -> None:
    name = up(topology("exit 1", restart="always"))
    awaited(lab, name, "degraded")
    (state,) = json.loads(lab("inspect", "--json", "--lab", name).stdout)["states"]
    assert state["restarts"] > MOST_RESTARTS


def test_up_names_what_broke_while_others_got_ready(lab: Any, name: str, tmp_path: Path) -> None:
    started_again = 'until [ "$(cat /tmp/starts 2>/dev/null | wc -l)" -ge 2 ]; do sleep 0.01; done'
    late = {"run": ["sh", "-c", f"{started_again}; echo here; exec sleep 600"], "ready": {"log": "here"}}
    made = topology("echo start >> /tmp/starts; exit 3", restart="on-failure")
    made["nodes"]["a"]["services"]["late"] = late
    file = tmp_path / "topology.yaml"
    file.write_text(json.dumps(made))
    try:
        shown = lab("up", "--name", name, file, code=0).stdout
        assert f"{name} is ready in" in shown
        assert "but service a/job had to be restarted (times: " in shown
        assert "a/late" not in shown
    finally:
        lab("down", name)


def told(state: str, exit_code: int | None, restarts: int) -> dict[str, Any]:
    """What a lab with one service without a ready check says."""
    one = {"node": "a", "service": "job", "state": state, "exit_code": exit_code, "restarts": restarts}
    return {"nodes": [{"name": "a", "services": [{"name": "job", "ready_check": False}]}], "states": [one]}


@pytest.mark.parametrize(
    ("state", "exit_code", "restarts", "expected"),
    [
        ("ready", None, 99, ("ready", 1)),
        ("starting", 1, MOST_RESTARTS, ("starting", 0)),
        ("starting", 1, MOST_RESTARTS + 1, ("degraded", 0)),
        ("ended", 0, 0, ("ready", 1)),
        ("ended", -9, 0, ("degraded", 0)),
        ("failed", None, 0, ("degraded", 0)),
    ],
)
def test_each_state_counts_as_it_should(
    state: str, exit_code: int | None, restarts: int, expected: tuple[str, int]
) -> None:
    assert health(told(state, exit_code, restarts)) == expected


def test_only_what_broke_is_a_trouble() -> None:
    assert (
        troubles(told("ended", 0, 0)) == troubles(told("ready", None, 1)) == troubles(told("starting", None, 0)) == []
    )
    assert troubles(told("ended", 7, 0)) == ["service a/job ended with exit code 7"]
    assert troubles(told("failed", None, 0)) == ["service a/job failed"]
    assert troubles(told("starting", 7, 2)) == ["service a/job had to be restarted (times: 2, last exit code 7)"]
    assert troubles(told("ready", None, 2)) == ["service a/job had to be restarted (times: 2)"]
