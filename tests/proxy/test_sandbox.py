"""What a running proxy could still do if it were taken over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.proxy.conftest import Start

NET_BIND_SERVICE, NET_RAW = 1 << 10, 1 << 13  # linux/capability.h
FILTERED = "2"  # SECCOMP_MODE_FILTER, proc(5)
CONFIG = """
workers = 3
[listener.in]
tcp = ["HERE:8443"]
udp = ["HERE:8443"]
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9001"]
"""


@pytest.mark.essential
def test_every_thread_is_filtered_and_has_two_capabilities_at_most(start: Start) -> None:
    proxy = start(CONFIG)
    threads = sorted(Path(f"/proc/{proxy.pid}/task").iterdir())
    assert len(threads) >= 5, "three workers, the control thread, the log"
    kept = NET_BIND_SERVICE | NET_RAW if os.geteuid() == 0 else 0
    for thread in threads:
        lines = (thread / "status").read_text().splitlines()
        status = {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == kept
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", FILTERED)
        if os.geteuid() == 0:
            assert int(status["CapBnd"], 16) == kept
