"""Links as tables for people: what is asked beside what has been measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lab.cli.table import table

if TYPE_CHECKING:
    from lab.cli.style import Style
    from lab.realise.message import Message

_COLOUR = {"up": "green", "down": "yellow", "cut": "red"}
_COUNTS = {
    "lost": "lost as asked",
    "dropped": "dropped",
    "queue_full": "dropped, queue full",
    "memory_full": "dropped, memory full",
    "no_room": "dropped, receiver full",
    "end_down": "dropped, receiver down",
    "refused": "refused by the kernel",
    "duplicated": "duplicated",
    "corrupted": "corrupted",
    "reordered": "reordered",
}


def link_table(links: list[Message], style: Style) -> str:
    """One line a link, then what is wrong with any."""
    rows = [
        [
            link["link"],
            link["state"],
            *_asked(link),
            link["backend"] if link["backend"] != "none" else "-",
            *(_summary(link["measured"][way]) for way in ("egress", "ingress")),
        ]
        for link in links
    ]
    titles = ["LINK", "STATE", "ASKED", "BY", "NODE SENT", "NODE RECEIVED"]
    text = table(titles, rows, style, lambda column, word: _COLOUR.get(word, "") if column == 1 else "")
    problems = [f"{link['link']}: {link['problem']}\n" for link in links if link["problem"]]
    probes = [f"{link['link']}: {round_trips}\n" for link in links if (round_trips := _round_trips(link))]
    return text + "".join(problems + probes)


def link_details(link: Message, style: Style) -> str:
    """One link: each direction with each of its counts."""
    since = f", since {time.strftime('%H:%M:%S', time.localtime(link['since']))}" if link["since"] else ""
    means = link["backend"] if link["backend"] != "none" else "nothing in its way"
    pending = f"; {link['pending']} changes to come by themselves" if link["pending"] else ""
    head = f"{style.paint(link['link'], 'bold')}  {link['state']}  ({means}{since}{pending})\n\n"
    rows = []
    for way, whose in (("egress", f"{link['node']} sends"), ("ingress", f"{link['node']} receives")):
        declared = link["declared"][way] if link["declared"][way] != link["asked"][way] else ""
        asked = (link["asked"][way] or "nothing") + (f" (declared: {declared})" if declared else "")
        rows.append([whose, asked, _measured(link["measured"][way])])
    text = head + table(["DIRECTION", "ASKED", "MEASURED"], rows, style)
    for line in (link["problem"], _round_trips(link)):
        text += f"\n{line}\n" if line else ""
    return text


def _asked(link: Message) -> list[str]:
    egress, ingress = link["asked"]["egress"], link["asked"]["ingress"]
    if egress == ingress:
        return [f"{egress} each way" if egress else "-"]
    return [f"sends {egress or 'plainly'}; receives {ingress or 'plainly'}"]


def _summary(measured: dict[str, Any]) -> str:
    dropped = sum(
        measured.get(name, 0)
        for name in ("lost", "dropped", "queue_full", "memory_full", "no_room", "end_down", "refused")
    )
    words = [_frames(measured["frames"])]
    words += [f"{dropped} lost"] if dropped else []
    words += [f"{measured['delay_mean_ms']:g} ms"] if measured["delay_mean_ms"] is not None else []
    return ", ".join(words)


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _measured(measured: dict[str, Any]) -> str:
    frames = measured["frames"]
    words = [_frames(frames)]
    for name, text in _COUNTS.items():
        count = measured.get(name, 0)
        if count:
            words.append(f"{count} {text} ({count / frames:.2%})" if frames else f"{count} {text}")
    if measured["delay_mean_ms"] is not None:
        words.append(f"delay {measured['delay_mean_ms']:g} ms on average")
    if measured.get("delay_p50_ms") is not None:
        least, half, most = (measured[f"delay_{which}_ms"] for which in ("min", "p50", "p99"))
        words.append(f"from {least:g} ms, half within {half:g} ms, 99% within {most:g} ms")
    return ", ".join(words)


def _round_trips(link: Message) -> str:
    found = link.get("round_trips")
    if not found:
        return ""
    if not found["answered"]:
        return (
            f"none of {found['asked']} echo requests to {found['to']} answered, nor of those that {found['to']} sent: "
            "the link loses them, or a firewall at each end drops them"
        )
    times = f"{found['min_ms']:g}/{found['mean_ms']:g}/{found['max_ms']:g} ms (min/mean/max)"
    sender = "" if found["by"] == link["node"] else f"from {found['by']} "
    return f"{found['answered']} of {found['asked']} echo requests {sender}to {found['to']} answered, in {times}"
