"""Flows that go on while the configuration and the process change: a QUIC stream, and a WireGuard tunnel."""

from __future__ import annotations

import re

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.quic_streams import NAME, Stream, streaming
from tests.proxy.running import DEADLINE
from tests.proxy.udp_bench import drops, flows
from tests.proxy.upgrading import upgrading

RELOADS, UPGRADES = 50, 3
TEXT = f"""
[listener.in]
udp = ["HERE:8443"]
[[rule]]
name = "NUMBER"
protocols = ["quic"]
server_name = '^{re.escape(NAME)}$'
to = "b"
[backend.b]
targets = ["HERE:9001"]
"""


def goes_on(stream: Stream) -> None:
    """Something is said and comes back after now."""
    # What is under way now may be on its way back already.
    before = stream.chunks
    wait_until(lambda: stream.chunks >= before + 2, DEADLINE, "the stream goes on")


def test_a_quic_stream_is_whole_after_fifty_reloads(start: Start) -> None:
    proxy = start(TEXT)
    with streaming(proxy.folder, (proxy.here, 9001), (proxy.here, 8443)) as stream:
        for number in range(RELOADS):
            goes_on(stream)
            proxy.reload(TEXT.replace("NUMBER", f"{number}"))
        goes_on(stream)
        assert flows(proxy) == 1
        assert drops(proxy) == {}
    assert len(stream.sources) == 1, "the server sees one flow"


def test_a_quic_stream_is_whole_after_three_upgrades(start: Start) -> None:
    proxy = start(TEXT)
    with (
        upgrading(proxy) as upgrades,
        streaming(proxy.folder, (proxy.here, 9001), (proxy.here, 8443)) as stream,
    ):
        for number in range(UPGRADES):
            goes_on(stream)
            upgrades.upgrade(TEXT.replace("NUMBER", f"{number}"))
        goes_on(stream)
        assert flows(proxy) == 1
        assert drops(proxy) == {}
    assert len(stream.sources) == 1, "the server sees one flow"
