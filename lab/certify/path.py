"""Whether packets pass at all: without that, what does not arrive says nothing of a NAT."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from lab.certify.bench import Bench

T = TypeVar("T")
_BETWEEN = 0.3  # seconds


async def while_passing(bench: Bench, probing: Coroutine[Any, Any, T]) -> T | None:
    """What is found by probing; None if packets stopped passing before its end: a link was cut, the router paused."""
    task = asyncio.ensure_future(probing)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=_BETWEEN)
            if not await bench.passes(bench.control):
                return None
            if done:
                return task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
