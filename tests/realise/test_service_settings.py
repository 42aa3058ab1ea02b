"""How a service runs: its user, environment, folder and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.errors import HostError
from lab.realise.identity import Ids, ids_of_this_user
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

SHOW = "{ id -un; id -u; pwd; env; } > seen; echo done; exec sleep 1000"
FILE = (
    "listen {{ node.address.lan }}; peer {{ nodes.b.address.lan }}; "
    "v6 {{ node.address6.lan }}; net {{ networks.lan.prefix }}\n"
)


def topology(**services: dict[str, Any]) -> dict[str, Any]:
    return {
        "networks": {"lan": {"prefixes": ["192.0.2.0/24", "2001:db8::/64"]}},
        "nodes": {
            "a": {"links": {"lan": ["192.0.2.1", "2001:db8::1"]}, "services": services},
            "b": {"links": {"lan": "192.0.2.2"}},
        },
    }


def show(**settings: Any) -> dict[str, Any]:
    return {"run": ["sh", "-c", SHOW], "ready": {"log": "^done$"}, **settings}


def seen(lab: Lab, service: str) -> list[str]:
    return lab["a"].read(f"/run/lab/services/{service}/seen").decode().splitlines()


@pytest.fixture
def other_ids() -> None:
    if ids_of_this_user() is Ids.ONE:
        pytest.skip("this user has a single id to give")


def test_a_service_is_root_in_a_folder_of_its_own(up: Callable[..., Lab]) -> None:
    assert seen(up(topology(web=show())), "web")[:3] == ["root", "0", "/run/lab/services/web"]


@pytest.mark.usefixtures("other_ids")
def test_a_service_runs_as_its_user_who_owns_its_folder(up: Callable[..., Lab]) -> None:
    lab = up(topology(web=show(user="nobody", files={"conf.d/own.conf": {"text": "x"}})))
    lines = seen(lab, "web")
    assert lines[:3] == ["nobody", "65534", "/run/lab/services/web"]
    assert {"USER=nobody", "LOGNAME=nobody"} <= set(lines)
    owners = lab["a"].run(["sh", "-c", "stat -c %U . conf.d conf.d/own.conf"], cwd="/run/lab/services/web").stdout
    assert owners.split() == ["nobody"] * 3


@pytest.mark.usefixtures("other_ids")
def test_a_user_that_does_not_exist_is_named(up: Callable[..., Lab]) -> None:
    with pytest.raises(HostError, match="no user 'nosuchuser' on this host"):
        up(topology(web=show(user="nosuchuser")))


def test_a_service_gets_the_environment_of_the_file(up: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "do not tell")
    lines = seen(up(topology(web=show(env={"LISTEN": "{{ node.address.lan }}:80", "DEPTH": 3}))), "web")
    assert {"LISTEN=192.0.2.1:80", "DEPTH=3", "USER=root", "HOME=/run/lab/home"} <= set(lines)
    assert not [line for line in lines if "do not tell" in line]


def test_files_hold_the_facts_of_the_lab(up: Callable[..., Lab], tmp_path: Path) -> None:
    (tmp_path / "beside.conf").write_text("from a file: " + FILE)
    lab = up(topology(web=show(files={"inline.conf": {"text": FILE}, "conf.d/beside.conf": "beside.conf"})))
    facts = "listen 192.0.2.1; peer 192.0.2.2; v6 2001:db8::1; net 192.0.2.0/24\n"
    assert lab["a"].read("/run/lab/services/web/inline.conf").decode() == facts
    assert lab["a"].read("/run/lab/services/web/conf.d/beside.conf").decode() == "from a file: " + facts


def test_the_command_holds_the_facts_of_the_lab(up: Callable[..., Lab]) -> None:
    lab = up(topology(web={"run": "echo {{ lab.name }} {{ service.name }} {{ node.name }}", "ready": {"log": "a"}}))
    assert lab["a"].log("web").split() == [lab.name, "web", "a"]


def test_files_belong_to_one_service(up: Callable[..., Lab]) -> None:
    lab = up(topology(web=show(files={"own.conf": {"text": "web's"}}), dns=show(files={"own.conf": {"text": "dns's"}})))
    assert lab["a"].read("/run/lab/services/web/own.conf") == b"web's"
    assert lab["a"].read("/run/lab/services/dns/own.conf") == b"dns's"
    with pytest.raises(FileNotFoundError):
        lab["b"].read("/run/lab/services/web/own.conf")


def test_output_and_errors_of_a_service_are_in_its_log(up: Callable[..., Lab]) -> None:
    lab = up(topology(web={"run": ["sh", "-c", "echo out; echo err >&2; exec sleep 1000"], "ready": {"log": "err"}}))
    assert lab["a"].log("web") == "out\nerr\n"
    assert lab["a"].read("/run/lab/log/web.log") == b"out\nerr\n"
    lab["a"].wait_log("web", "out")
    with pytest.raises(TimeoutError, match="'never' is in the log of a/web"):
        lab["a"].wait_log("web", "never", timeout=0.05)


def test_a_service_has_nothing_to_read(up: Callable[..., Lab]) -> None:
    lab = up(topology(web={"run": ["sh", "-c", "cat; echo end of input"], "ready": {"log": "end of input"}}))
    assert lab["a"].log("web") == "end of input\n"
