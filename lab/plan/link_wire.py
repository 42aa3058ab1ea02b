"""Impairments as linkwire takes them (`linkwire serve`)."""

from __future__ import annotations

import hashlib
from typing import Any

from lab.topology.impairment import GilbertElliott, Impairment


def wire_form(impairment: Impairment, mtu: int) -> dict[str, Any]:
    """One direction as a JSON-able value, every key given."""
    loss: dict[str, Any] = {"random": impairment.loss}
    if isinstance(impairment.loss, GilbertElliott):
        bursts = impairment.loss
        shares = {"p": bursts.p, "r": bursts.r, "loss_good": bursts.good, "loss_bad": bursts.bad}
        loss = {"gilbert_elliott": shares}
    return {
        "delay_ns": impairment.delay,
        "jitter_ns": impairment.jitter,
        "distribution": impairment.distribution,
        "loss": loss,
        "reorder": impairment.reorder,
        "duplicate": impairment.duplicate,
        "corrupt": impairment.corrupt,
        "rate_bps": impairment.rate or None,
        "queue_bytes": impairment.queue_bytes(mtu) or None,
    }


def seed_of(lab: str, link: str) -> int:
    """The seed of a link's chances: the same lab has the same ones again."""
    return int.from_bytes(hashlib.sha256(f"{lab}/{link}".encode()).digest()[:6], "big")
