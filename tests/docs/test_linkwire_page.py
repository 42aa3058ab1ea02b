"""The page about linkwire names every counter and its example is one that linkwire takes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.wire.master import Master, attach
from tests.wire.wire_bench import Namespace

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun"
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "linkwire.md").read_text()


def test_the_example_is_taken_and_every_counter_named() -> None:
    match = re.search(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert match is not None
    values = json.loads(match[1])
    with Namespace() as node, Master() as master:
        attach(master, "wire", (node, "t1"), (node, "t2"), a_to_b=values, b_to_a=values)
        counters = master.counters()["a_to_b"]
    names = {*counters, *counters["delay"], *counters["late"]}
    assert len(names) > 15
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []
