"""The times of the file are those that are kept: each is far from its default, and told by the log's own clock.

Where a short time is asked for, the bound above is seconds away from it and from the default.
"""

from __future__ import annotations

import re
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, accepted, connect, is_reset, listening, own, read
from tests.proxy.running import Proxy
from tests.proxy.udp_bench import first_flight, flow_ended, heard, silent, udp

TCP = """
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9001"]
"""
SECOND = 1_000_000  # microseconds


def test_who_is_there_when_the_proxy_is_told_to_end_has_the_time_to_drain(start: Start) -> None:
    proxy = start(TCP + '[timeouts]\ndrain = "1s"\n')
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client, accepted(server) as backend:
        client.sendall(b"x")
        assert read(backend, 1) == b"x"
        proxy.send_signal(signal.SIGTERM)
        assert is_reset(client)
        assert proxy.wait(DEADLINE) == 0
        line = proxy.line_after_end(own(client))
    assert line["close"] == "drained"
    assert SECOND <= line["total_us"] < 15 * SECOND, "30 s if nothing is said"


FIRST_BYTES = """
[listener.in]
tcp = ["HERE:8443"]
udp = ["HERE:8443"]
proxy_header = [
  {from = "127.0.0.1/32", policy = "require"},
  {from = "127.0.0.2/32", policy = "optional"},
]
[[rule]]
name = "no header"
from = ["127.0.0.2/32"]
to = "out"
[[rule]]
name = "no word"
protocols = ["silence"]
to = "out"
[[rule]]
protocols = ["tls", "quic"]
to = "out"
[backend.out]
targets = ["HERE:9001"]
[timeouts]
silence = "4s"
header = "5s"
preface = "7s"
"""


def test_who_says_too_little_has_the_time_that_the_file_gives(start: Start) -> None:
    """All of them wait at once, each for longer than the default."""
    proxy = start(FIRST_BYTES)
    with ExitStack() as stack:
        server = stack.enter_context(listening(proxy.here, 9001))
        sources = ("127.0.0.1", "127.0.0.2", "127.0.0.9", "127.0.0.10")
        none, unsure, mute, half = (stack.enter_context(connect(proxy.here, 8443, source)) for source in sources)
        half.sendall(b"\x16\x03")
        undecided = stack.enter_context(udp(proxy.here))
        undecided.sendto(first_flight("aioquic_v1_long")[0], (proxy.here, 8443))  # half a hello
        for _ in (unsure, mute):
            accepted(server).close()
        assert is_reset(none)
        assert is_reset(half)
        assert flow_ended(proxy, undecided, "no_rule")["total_us"] >= 7 * SECOND
        names = [own(client) for client in (unsure, mute, none, half)]
    for name, rule in zip(names, ("no header", "no word"), strict=False):
        line = proxy.line(name)
        assert line["rule"] == rule
        assert line["preface_us"] >= 4 * SECOND, line
    assert proxy.ended(names[2], "header_timeout")["total_us"] >= 5 * SECOND
    assert proxy.ended(names[3], "preface_timeout")["total_us"] >= 7 * SECOND


EAGER = """
[listener.in]
udp = ["HERE:8443"]
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9001", "HERE:9002"]
connect_timeout = "TIME"
"""


def test_first_datagrams_are_kept_for_another_candidate_for_the_time_to_connect(start: Start) -> None:
    """A backend that goes without an answer: while the time lasts the next one gets them."""
    proxy = start(EAGER.replace("TIME", "200ms"))
    with udp(proxy.here, 9002) as other, udp(proxy.here) as client:
        with udp(proxy.here, 9001) as backend:
            client.sendto(b"first", (proxy.here, 8443))
            assert heard(backend)[0] == b"first"
            proxy.wait_for(lambda line: line["age_us"] > SECOND, "the time is over")
        client.sendto(b"second", (proxy.here, 8443))
        flow_ended(proxy, client, "backend_refused")
        assert silent(other)
    proxy = start(EAGER.replace("TIME", "1h"))
    with udp(proxy.here, 9002) as other, udp(proxy.here) as client:
        with udp(proxy.here, 9001) as backend:
            client.sendto(b"first", (proxy.here, 8443))
            assert heard(backend)[0] == b"first"
            proxy.wait_for(lambda line: line["age_us"] > 4 * SECOND, "longer than the default")
        client.sendto(b"second", (proxy.here, 8443))
        assert heard(other)[0] == b"first"


def test_a_flow_that_nobody_answers_has_its_own_time(start: Start) -> None:
    proxy = start(TCP.replace("tcp", "udp") + '[timeouts]\nudp_one_way = "1s"\n')
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        client.sendto(b"is anybody there?", (proxy.here, 8443))
        heard(backend)
        line = flow_ended(proxy, client, "one_way_timeout")
    assert SECOND <= line["total_us"] < 30 * SECOND, "a minute if nothing is said"


def keep_alive(end: str) -> int:
    """Seconds until the kernel asks the peer of the only socket with this end; -1: it will not (ss(8))."""
    words = ["ss", "-Htno", "state", "established", end]
    (line,) = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    found = re.search(r"timer:\(keepalive,(?:(\d+)min)?(?:(\d+)(?:sec|\.))?", line)
    return -1 if found is None else 60 * int(found[1] or 0) + int(found[2] or 0)


@pytest.mark.parametrize("limit", ["10s", "9000s"])
def test_the_kernel_asks_both_ends_whether_they_are_there_after_the_time_of_the_file(start: Start, limit: str) -> None:
    """A time that is short at once, a long one when the connection has been quiet."""
    proxy = start(TCP + f'[timeouts]\nkeepalive = "{limit}"\n')
    least, most = (0, 10) if limit == "10s" else (8000, 9000)
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client, accepted(server) as backend:
        client.sendall(b"x")
        assert read(backend, 1) == b"x"
        for end in (f"src {proxy.here}:8443", f"dst {proxy.here}:9001"):
            wait_until(lambda end=end: least <= keep_alive(end) <= most, 30, end)  # type: ignore[misc]


def workers(proxy: Proxy) -> set[str]:
    """The names of its threads that work; a thread gives itself its name."""
    names = set()
    for thread in Path(f"/proc/{proxy.pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            names.add((thread / "comm").read_text().strip())
    return {name for name in names if name.startswith("worker-")}


def test_as_many_threads_work_as_the_file_says(start: Start) -> None:
    for count in (1, 5):
        proxy = start(f"workers = {count}\n" + TCP)
        expected = {f"worker-{number}" for number in range(count)}
        wait_until(lambda of=proxy, to=expected: workers(of) == to, 20, f"{count} workers")  # type: ignore[misc]
