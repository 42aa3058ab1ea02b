"""The proxy's threads do not interrupt whoever sends to them, unless whoever started it has decided otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from tests.proxy.conftest import Start
from tests.proxy.running import Proxy

CONFIG = """
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
to = "server"
[backend.server]
targets = ["HERE:9001"]
"""


def policies(proxy: Proxy) -> set[int]:
    return {os.sched_getscheduler(int(task.name)) for task in Path(f"/proc/{proxy.pid}/task").iterdir()}


def test_all_threads_let_senders_go_on(start: Start) -> None:
    assert policies(start(CONFIG)) == {os.SCHED_BATCH}


def test_a_policy_that_was_chosen_is_kept(start: Start) -> None:
    assert policies(start(CONFIG, before=("chrt", "--idle", "0"))) == {os.SCHED_IDLE}
