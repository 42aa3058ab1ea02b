"""Hosts that lack something: a shell prepares private namespaces, in which the examination is run by itself."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lab.host import Feature, Finding, Status
from lab.host.facts import HostFacts

ROOT = Path(__file__).resolve().parents[2]
EXAMINE = """
import json, sys, time
from dataclasses import asdict
from lab.host import examine
began = time.monotonic()
findings = examine()
json.dump({"seconds": time.monotonic() - began, "findings": [asdict(each) for each in findings]}, sys.stdout)
"""
AS_NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups"
WITHOUT_RIGHTS = "setpriv --bounding-set=-sys_admin,-net_admin"


class Examined(dict[str, Finding]):
    """The findings by name, and how long the examination took."""

    seconds: float


def facts(**changed: object) -> HostFacts:
    """An ordinary user on a healthy host, but for what is `changed`."""
    ordinary = HostFacts(
        uid=1000,
        user="alice",
        needs_user_namespace=True,
        mapped_ids=2**32 - 1,
        has_user_namespaces=True,
        max_namespaces=dict.fromkeys(("user", "net", "mnt", "pid", "uts", "ipc"), 96365),
        unprivileged_userns_clone=None,
        apparmor_restricts=None,
        seccomp_filtered=False,
        no_new_privileges=False,
        chrooted=False,
        container=False,
        proc_covers=(),
        ipv6_module_disabled=False,
    )
    return replace(ordinary, **changed)  # type: ignore[arg-type]


class Host:
    """Runs the examination on a host prepared by a shell script."""

    facts = staticmethod(facts)
    nobody = AS_NOBODY
    without_rights = WITHOUT_RIGHTS

    def refusing(self, call: str, error: str, *conditions: str) -> str:
        """A command before which a system call is refused."""
        script = Path(__file__).with_name("refuse_syscall.py")
        return shlex.join([sys.executable, str(script), call, error, *conditions, "--"])

    def examine(self, *, prepare: str = "", enter: str = "unshare --mount", before: str = "") -> Examined:
        """`enter` makes namespaces, `prepare` is a shell script in them, `before` are commands before the program."""
        program = shlex.join([sys.executable, "-c", EXAMINE])
        result = subprocess.run(
            [*shlex.split(enter), "sh", "-euc", f"{prepare}\nexec {before} {program}"],
            cwd=ROOT,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        answer = json.loads(result.stdout)
        examined = Examined({entry["name"]: as_finding(entry) for entry in answer["findings"]})
        assert len(examined) == len(answer["findings"]), "two findings have one name"
        examined.seconds = answer["seconds"]
        return examined


def as_finding(entry: dict[str, object]) -> Finding:
    features = entry["features"]
    assert isinstance(features, list)
    return Finding(
        name=str(entry["name"]),
        features=tuple(Feature(feature) for feature in features),
        status=Status(str(entry["status"])),
        found=str(entry["found"]),
        mend=str(entry["mend"]),
        required=bool(entry["required"]),
    )


@pytest.fixture(scope="session")
def host() -> Host:
    return Host()


@pytest.fixture(scope="session")
def healthy(host: Host) -> Examined:
    """The findings on this host as it is."""
    return host.examine(enter="env")
