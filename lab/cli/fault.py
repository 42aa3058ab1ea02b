"""`lab fault`: what goes wrong in a running lab: bring it about, see what is in force, heal it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

from lab.cli.parser import Parser
from lab.cli.running_lab import connect
from lab.cli.style import Style
from lab.cli.table import table
from lab.errors import ExitCode, UsageError
from lab.realise.asking import ask
from lab.realise.fault import bring_about, heal
from lab.realise.message import Message


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a fault is asked for."""

    targets: str
    least: int
    most: int
    lasts: bool
    what: str


KINDS = {
    "kill": _Kind("NODE[/SERVICE]", 1, 1, True, "switch a node off, or end a service and keep it from starting"),
    "pause": _Kind("NODE[/SERVICE]", 1, 1, True, "let a node or a service hang: stopped, but not gone"),
    "restart": _Kind("NODE[/SERVICE]", 1, 1, False, "stop it, start it, wait until it is ready; heals the two above"),
    "partition": _Kind("ONE OTHER", 2, 2, True, "let nothing pass between two nodes or networks"),
    "flush-nat": _Kind("ROUTER", 1, 1, False, "let a router forget all its mappings and flows"),
    "change-address": _Kind("ROUTER [ADDRESS]", 1, 2, True, "give its outside another address of the prefix"),
}


def run(words: list[str]) -> int:
    """Show, bring about or heal."""
    kinds = "\n".join(f"  {f'{word} {kind.targets}':36} {kind.what}" for word, kind in KINDS.items())
    parser = Parser(
        "fault",
        "Let something go wrong in a running lab, until it is healed. Without a word the faults in force are shown.\n\n"
        f"{kinds}\n  {'heal [NUMBER]...':36} undo these faults; or all, and changes of links, the latest first",
        notes="--json: faults (in force, or healed; each: number, kind, targets, note, since and until: seconds\n"
        "since the epoch, trouble: why it could not be healed), note (what was done), mended (links).",
        example="lab fault kill nas/web\nlab fault pause isp --for 5s\nlab fault\nlab fault heal",
    )
    parser.usage = "lab fault [--lab NAME] [--json] [KIND TARGET... [--for TIME] | heal [NUMBER]...]"
    parser.add_argument("kind", metavar="KIND", nargs="?", help="what goes wrong, or heal")
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="where")
    parser.add_argument("--for", metavar="TIME", dest="duration", help="heal it by itself after 500ms, 5s, 1min")
    parser.add_lab()
    parser.add_json()
    options = parser.parse_intermixed_args(words)
    kind, targets = options.kind, options.targets
    if kind in (None, "heal"):
        if options.duration is not None:
            parser.error("--for belongs to a fault that lasts")
        numbers = _numbers(parser, targets)
        with connect(options.lab) as channel:
            if kind is None:
                _show(ask(channel, {"ask": "faults"})[0]["faults"], as_json=options.json)
            else:
                answers = [heal(channel, number) for number in numbers]
                healed = [fault for answer in answers for fault in answer["healed"]]
                _say_healed(healed, [name for answer in answers for name in answer["mended"]], as_json=options.json)
        return ExitCode.OK
    _check(parser, kind, targets, options.duration)
    seconds = None if options.duration is None else _seconds(options.duration)
    with connect(options.lab) as channel:
        done = bring_about(channel, kind, targets, seconds)
    if options.json:
        print(json.dumps({"faults": [done["fault"]] if done["fault"] else [], "note": done["note"]}, indent=2))
    else:
        ending = f"; `lab fault heal {done['fault']['number']}` ends it" if done["fault"] and seconds is None else ""
        print(f"{' '.join(targets)}: {done['note']}{ending}")
    return ExitCode.OK


def _check(parser: Parser, kind: str, targets: list[str], duration: str | None) -> None:
    if kind not in KINDS:
        from difflib import get_close_matches

        near = get_close_matches(kind, [*KINDS, "heal"], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        parser.error(f"no fault is called {kind!r}{hint}; there are: {', '.join(KINDS)}; and heal")
    known = KINDS[kind]
    if not known.least <= len(targets) <= known.most:
        parser.error(f"{kind} takes {known.targets}, not {' '.join(targets) or 'nothing'}")
    if duration is not None and not known.lasts:
        parser.error(f"--for belongs to a fault that lasts; {kind} is over at once")


def _seconds(text: str) -> float:
    from lab.topology.faults import Wrong
    from lab.topology.units import parse_duration

    try:
        return parse_duration(text)
    except Wrong as wrong:
        raise UsageError(f"--for {wrong}") from wrong


def _numbers(parser: Parser, words: list[str]) -> list[int | None]:
    """The latest first; None for all."""
    for word in words:
        if not word.isdecimal():
            parser.error(f"heal takes numbers of faults, as `lab fault` shows them, not {word!r}")
    return [*sorted({int(word) for word in words}, reverse=True)] or [None]


def _show(faults: list[Message], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"faults": faults}, indent=2))
        return
    if not faults:
        print("no fault is in force")
        return
    rows = [
        [
            str(fault["number"]),
            fault["kind"],
            " ".join(fault["targets"]),
            _clock(fault["since"]),
            "healed" if fault["until"] is None else _clock(fault["until"]),
            fault["note"] + (f"; NOT HEALED: {fault['trouble']}" if fault["trouble"] else ""),
        ]
        for fault in faults
    ]
    print(table(["NUMBER", "FAULT", "WHERE", "SINCE", "UNTIL", "WHAT"], rows, Style(sys.stdout)), end="")


def _say_healed(healed: list[Message], mended: list[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"faults": healed, "mended": mended}, indent=2))
        return
    if not healed and not mended:
        print("no fault is in force")
    for fault in healed:
        print(f"healed: {fault['kind']} {' '.join(fault['targets'])}, in force since {_clock(fault['since'])}")
    for name in mended:
        print(f"healed: {name}, as declared again")


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
