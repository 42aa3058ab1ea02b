"""`edgeproxy doctor --probe` dials backends from an address that nobody has: do answers find back, and if not why?

home (the proxy) -- lan -- nas, and stray, whose way to others does not lead by home
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.proxy.running import DEADLINE, Proxy, edgeproxy, running_in
from tests.realise.conftest import Up

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
  lan: {prefixes: [192.168.1.0/24, "2001:db8:10::/64"]}
nodes:
  home: {role: router, links: {internet: [198.51.100.1, "2001:db8:1::1"], lan: [192.168.1.1, "2001:db8:10::1"]}}
  nas: {links: {lan: [192.168.1.10, "2001:db8:10::10"]}}
  stray: {links: {lan: [192.168.1.20]}}
"""
# Name of the backend, its target, and the status and a part of what is found.
BACKENDS = {
    "loopback": ("127.0.0.1:9001", "ok", "answers 192.0.2.1"),
    "own-address": ("192.168.1.1:9001", "ok", "answers 192.0.2.1"),
    "answers": ("192.168.1.10:9001", "ok", "answers 192.0.2.1"),
    "six": ("[2001:db8:10::10]:9001", "ok", "answers 2001:db8::1"),
    "refuses": ("192.168.1.10:9002", "note", "refuses 192.0.2.1"),
    "astray": ("192.168.1.20:9001", "missing", "ip rule add ipproto tcp sport 9001 lookup 100"),
    "dropped": ("192.168.1.10:9003", "missing", "nor does it this host"),
    "nowhere": ("192.168.7.7:9001", "missing", "cannot be reached"),
}
CONFIG = """
[[rule]]
to = "sees-the-proxy"
[listener.in]
tcp = ["127.0.0.1:8443"]
[backend.sees-the-proxy]
targets = ["192.168.1.10:9004"]
[transparent]
manage_rules = true
"""
BACKEND = """
[[rule]]
from = ["203.0.113.NUMBER/32"]
to = "NAME"
[backend.NAME]
targets = ["TARGET"]
source = "client_or_own"
connect_timeout = "10s"
"""
DROP = """
table inet test {
    chain input {
        type filter hook input priority 0
        tcp dport 9003 drop
    }
}
"""
Probes = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Iterator[Lab]:
    lab = module_up(TOPOLOGY)
    lab["home"].run(["ip", "route", "add", "default", "via", "198.51.100.254"], check=True)  # or no answer begins there
    lab["home"].run(["ip", "route", "add", "unreachable", "192.168.7.0/24"], check=True)
    lab["stray"].run(["ip", "route", "del", "default"], check=True)
    lab["nas"].run(["nft", "-f", "-"], input=DROP, check=True)
    with ExitStack() as stack:
        for node in ("home", "nas", "stray"):
            stack.enter_context(lab[node].listen(9001))
        yield lab


@pytest.fixture
def proxy(lab: Lab, folder: Path) -> Iterator[Proxy]:
    with running_in(lab["home"], config(*BACKENDS), "127.0.0.1", folder) as found:
        yield found


def config(*names: str) -> str:
    backends = ""
    for number, name in enumerate(names):
        backends += BACKEND.replace("NUMBER", str(number)).replace("NAME", name).replace("TARGET", BACKENDS[name][0])
    return backends + CONFIG


def probes(lab: Lab, file: Path) -> Probes:
    """Status and word of each backend that was dialled; the exit status says the same."""
    done = lab["home"].run([edgeproxy(), "doctor", "-c", str(file), "--probe", "--json"], timeout=DEADLINE)
    assert done.stdout, done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == int(any(finding["status"] == "missing" for finding in findings))
    of = "probe of "
    return {f["name"].removeprefix(of): (f["status"], f["found"]) for f in findings if f["name"].startswith(of)}


@pytest.mark.essential
def test_whether_and_why_not_answers_find_back_is_told_for_each_backend_that_sees_clients(
    lab: Lab, proxy: Proxy
) -> None:
    found = probes(lab, proxy.config)
    assert set(found) == set(BACKENDS)
    for name, (target, status, part) in BACKENDS.items():
        assert found[name][0] == status, (name, found[name], proxy.said)
        assert found[name][1].startswith(f"{target} "), found[name]
        assert part in found[name][1], found[name]


def test_without_the_proxy_the_rules_are_named_as_what_is_not_there(lab: Lab, folder: Path) -> None:
    file = folder / "c.toml"
    file.write_text(config("loopback", "answers"))
    # Whoever keeps them takes them away a moment after the proxy of another test has ended.
    ruled = ["ip", "rule", "show", "table", "25968"]
    wait_until(lambda: lab["home"].run(ruled).stdout == "", DEADLINE, "no rules of another test")
    found_of = probes(lab, file)
    for name in ("loopback", "answers"):
        status, found = found_of[name]
        assert status == "missing"
        assert "the kernel's rules are not here" in found


def test_who_may_not_dial_so_is_told(lab: Lab, proxy: Proxy) -> None:
    words = [
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        edgeproxy(),
        "doctor",
        "-c",
        str(proxy.config),
        "--probe",
    ]
    said = lab["home"].run(words, timeout=DEADLINE).stdout
    assert "not tried  probe of loopback: IP_TRANSPARENT is not permitted" in said
