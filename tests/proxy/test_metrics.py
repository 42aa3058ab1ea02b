"""The metrics of a proxy that has had traffic, as Prometheus' own tool reads them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import accepted, connect, listening, read, refused
from tests.proxy.proxy_protocol import v2
from tests.proxy.running import DEADLINE
from tests.proxy.udp_bench import heard, udp

PAGE = Path(__file__).parents[2] / "docs/edgeproxy_operation.md"
CONFIG = r"""
deny = ["127.0.0.99/32"]
[listener.in]
tcp = ["HERE:8443"]
mptcp = true
udp = ["HERE:8443"]
proxy_header = [{from = "127.0.0.66/32", policy = "require"}]
[[rule]]
name = 'says "hé", {a="b"} 1 \n \'
protocols = ["tls"]
to = "out"
[[rule]]
protocols = ["http1"]
to = "closed"
[[rule]]
transport = "udp"
to = "datagrams"
[backend.out]
targets = ["HERE:9001"]
send_proxy = "v2"
[backend.closed]
targets = ["HERE:9"]
[backend.datagrams]
targets = ["HERE:9002"]
"""
# What needs a lack of descriptors, a file of another user, a host that does not answer, an end.
IDLE = {
    "edgeproxy_accept_errors_total",
    "edgeproxy_access_log_reopen_failures_total",
    "edgeproxy_backend_ejected_endpoints",
    "edgeproxy_draining",
}
# What is there with `manage_rules` only.
ABSENT = {"edgeproxy_kernel_rules_present", "edgeproxy_kernel_rules_restored_total"}
VECTORS = Path(__file__).parents[2] / "proxy/tests/vectors"


def captured(client: str) -> bytes:
    """A hello that was captured of this client."""
    return (VECTORS / "client_hello" / f"{client}.bin").read_bytes()


@pytest.fixture(scope="module")
def scraped(module_start: Start) -> str:
    """The text of a proxy to which all has happened that needs no fault of its host."""
    proxy = module_start(CONFIG)
    here = proxy.here
    proxy.write("nonsense")
    proxy.send_signal(signal.SIGHUP)
    wait_until(lambda: proxy.metrics()["edgeproxy_reload_failures_total"] == 1, DEADLINE, "the refusal")
    proxy.reload(CONFIG)
    refused(here, 8443, source="127.0.0.99")
    refused(here, 8443, b"GET / HTTP/1.1\r\nHost: closed.example\r\n\r\n")
    with listening(here, 9001) as server, connect(here, 8443, "127.0.0.66") as client:
        client.sendall(v2() + captured("firefox"))
        with accepted(server) as backend:
            backend.sendall(b"back")
            assert read(client, 4) == b"back"
    with udp(here, 9002) as answering, udp(here) as asking, udp("127.0.0.99") as denied:
        denied.sendto(b"there", (here, 8443))
        asking.sendto(b"there", (here, 8443))
        _, proxied = heard(answering)
        answering.sendto(b"back", proxied)
        heard(asking)
    found: list[str] = []

    def is_counted() -> bool:
        found.append(proxy.scrape())
        return _busy(found[-1]) >= _documented() - IDLE - ABSENT

    with suppress(TimeoutError):  # then the test tells what is missing
        wait_until(is_counted, DEADLINE, "all is counted")
    return found[-1]  # what is counted at this moment, for gauges fall again


def _documented() -> set[str]:
    """The families in the table of the page."""
    _, _, section = PAGE.read_text().partition("\n## Metrics\n")
    lines = section.partition("\n## ")[0].splitlines()
    return {line.split("`")[1] for line in lines if line.startswith("| `")}


def _labels(text: str) -> set[tuple[str, str]]:
    """Of the samples: family and label. Quotes within a value are escaped."""
    family, found = "", set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            family = line.split(" ")[2]
        elif "{" in line:
            found |= {(family, label) for label in re.findall(r'[{,](\w+)="', line)}
    return found


def _busy(text: str) -> set[str]:
    """Those with a sample above 0."""
    family, found = "", set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            family = line.split(" ")[2]
        elif not line.startswith("#") and float(line.rsplit(" ", 1)[1]) > 0:
            found.add(family)
    return found


def _promtool(text: str) -> tuple[int, str, str]:
    """What `promtool check metrics` makes of it: its exit status, output and complaints."""
    found = shutil.which("promtool", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert found, "promtool is not installed: make setup, which says why where it cannot fetch it"
    words = [found, "check", "metrics"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return done.returncode, done.stdout, done.stderr


def test_every_documented_family_has_samples_of_traffic(scraped: str) -> None:
    assert _busy(scraped) == _documented() - IDLE - ABSENT
    for family in IDLE:
        assert f"\n{family}" in scraped


def test_every_label_is_told_of_its_family(scraped: str) -> None:
    rows = {line.split("`")[1]: line for line in PAGE.read_text().splitlines() if line.startswith("| `edgeproxy_")}
    labels = _labels(scraped)
    assert len({family for family, _ in labels}) > 15
    assert [each for each in sorted(labels) if each[1] != "le" and f"`{each[1]}`" not in rows[each[0]]] == []


def test_hidden_hellos_and_those_with_post_quantum_keys_are_counted_of_streams_and_of_flows(start: Start) -> None:
    proxy = start(
        """
        [listener.in]
        tcp = ["HERE:8443"]
        udp = ["HERE:8443"]
        [[rule]]
        protocols = ["tls", "quic"]
        refuse = true
        """
    )
    for client in ("firefox", "go_crypto_tls", "openssl_s_client_name"):
        refused(proxy.here, 8443, captured(client))

    def counted(ech: int, post_quantum: int) -> bool:
        metrics = proxy.metrics()
        found = [metrics[f"edgeproxy_{what}_hellos_total"] for what in ("ech", "post_quantum")]
        return found == [ech, post_quantum]

    wait_until(lambda: counted(1, 2), DEADLINE, "those over TCP")
    with udp(proxy.here) as sender:
        for line in (VECTORS / "quic_initial" / "firefox.hex").read_text().splitlines():
            sender.sendto(bytes.fromhex(line), (proxy.here, 8443))
        wait_until(lambda: counted(2, 3), DEADLINE, "one over UDP")


def test_promtool_has_no_complaint(scraped: str) -> None:
    assert _promtool(scraped) == (0, "", "")


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("edgeproxy_reloads_total", "edgeproxy_reloads", 'counter metrics should have "_total" suffix'),
        ("# HELP edgeproxy_workers", "# edgeproxy_workers", "no help text"),
        (r"\"hé\"", r'"hé"', "error while linting: text format parsing error"),
    ],
)
def test_promtool_does_complain_of_less(scraped: str, right: str, wrong: str, complaint: str) -> None:
    assert right in scraped
    status, _, complaints = _promtool(scraped.replace(right, wrong))
    assert status != 0
    assert complaint in complaints
