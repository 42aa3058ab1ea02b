"""What clients ask of links: change, cut, mend, flap, show; and what the plan has happen to them later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import LabError, UsageError
from lab.plan.link_backend import PLAIN, Backend, Pair
from lab.plan.link_name import Direction, directions_named, links_named
from lab.plan.step import ScheduleLink
from lab.realise.links import Links, LiveLink, pair_of
from lab.topology.faults import Wrong
from lab.topology.impairment import UNIMPAIRED, Impairment, changed, parse_words
from lab.topology.impairment_presets import PRESETS, parse_preset, with_preset
from lab.topology.units import parse_duration

if TYPE_CHECKING:
    from lab.realise.loop import Loop
    from lab.realise.message import Message
    from lab.realise.requests import Answer, Client, Handler

MOST_FLAPS = 10_000
Change = tuple[LiveLink, Pair, Backend | None]
"""What a link is to do to frames, and the means if it is to be a certain one."""


@dataclass(slots=True)
class LinkRequests:
    """Serves "link", and carries out schedules."""

    loop: Loop
    links: Links

    def handlers(self) -> dict[str, Handler]:
        """The requests served here."""
        return {"link": self._handle}

    def start_schedules(self) -> None:
        """Count time from now, when the lab is ready."""
        for step in self.links.plan.steps:
            if isinstance(step, ScheduleLink):
                self._schedule(step)

    def _handle(self, _client: Client, message: Message, _descriptors: list[int]) -> Answer:
        try:
            return {"links": self.links.facts(self._do(message))}, []
        except Wrong as wrong:
            raise UsageError(str(wrong)) from wrong

    def _do(self, message: Message) -> list[LiveLink]:
        """Do what is asked; the links it was about."""
        name = message.get("name")
        match message["do"]:
            case "show":
                return self._named(name)
            case "reset":
                self.links.reset()
                return self._named(None)
            case "set":
                return self._set(message)
            case "clear":
                return self._change(message, lambda *_: UNIMPAIRED, all_of_cable=True)
            case "carrier":
                return self._turn(self._named(name), up=bool(message["up"]))
            case "flap":
                return self._flap(message)
            case "restore":
                return self._restore(message["states"])
            case other:
                raise UsageError(f"nothing to do with links is called {other!r}")

    def _named(self, name: str | None) -> list[LiveLink]:
        by_end = self.links.by_end
        return list(by_end.values()) if name is None else [by_end[end] for end in links_named(name, list(by_end))]

    def _set(self, message: Message) -> list[LiveLink]:
        words = parse_words(message["words"])
        preset = message.get("preset")
        if preset is None and not words and message.get("backend") is None:
            raise UsageError("nothing to set; say what, as delay=40ms loss=1%")
        if preset is not None and PRESETS[parse_preset(preset)].mtu is not None:
            raise UsageError(
                f"preset {preset} sets the MTU, which only a topology file can, before the lab runs; "
                "`preset=dsl` is the same without"
            )

        def wanted(direction: Direction, before: Impairment, mtu: int) -> Impairment:
            if preset is None:
                return changed(before, words, mtu)
            return changed(UNIMPAIRED, with_preset(preset, direction, words), mtu)

        return self._change(message, wanted)

    def _change(
        self,
        message: Message,
        wanted: Callable[[Direction, Impairment, int], Impairment],
        *,
        all_of_cable: bool = False,
    ) -> list[LiveLink]:
        """Impair the named directions anew; all of them or none."""
        ends = list(self.links.by_end)
        named = directions_named(
            message["name"], message.get("from"), ends, self.links.cables, all_of_cable=all_of_cable
        )
        backend = _backend(message.get("backend"))
        changes: list[Change] = []
        for end, directions in named:
            link = self.links.by_end[end]
            mtu, (egress, ingress) = link.port.mtu, link.asked
            egress = wanted("egress", egress, mtu) if "egress" in directions else egress
            ingress = wanted("ingress", ingress, mtu) if "ingress" in directions else ingress
            changes.append((link, (egress, ingress), backend))
        self._impair_all(changes)
        return [link for link, _, _ in changes]

    def _impair_all(self, changes: list[Change]) -> None:
        """All of it or nothing; those that are to do nothing come last, together."""
        done: list[Change] = []
        try:
            for link, pair, backend in changes:
                if pair != PLAIN:
                    done.append((link, link.asked, link.backend))
                    self.links.impair(link, pair, backend)
            freed = [link for link, pair, _ in changes if pair == PLAIN]
            done += [(link, link.asked, link.backend) for link in freed]
            self.links.free(freed)
        except (LabError, OSError):
            for link, before, backend in reversed(done):
                if (link.asked, link.backend) != (before, backend):
                    with contextlib.suppress(LabError, OSError):
                        self.links.impair(link, before, backend)
            raise
        for link, _, _ in changes:
            self.links.forget_timers(link)

    def _turn(self, links: list[LiveLink], *, up: bool) -> list[LiveLink]:
        for link in links:
            self.links.forget_timers(link)
            self.links.set_carrier(link, up=up)
        return links

    def _restore(self, states: list[Message]) -> list[LiveLink]:
        """Links as they were told to be before: a client's own undoing."""
        changes: list[Change] = []
        for state in states:
            (link,) = self._named(state["link"])
            pair = pair_of(state["asked"]["egress"], state["asked"]["ingress"], link.port.mtu)
            changes.append((link, pair, Backend(state["backend"])))
        self._impair_all(changes)
        for state in states:
            self._turn(self._named(state["link"]), up=state["state"] != "down")
        return [link for link, _, _ in changes]

    def _flap(self, message: Message) -> list[LiveLink]:
        links = self._named(message["name"])
        down, up = (parse_duration(message[key]) for key in ("down", "up"))
        times = message["times"]
        if isinstance(times, bool) or not isinstance(times, int) or not 1 <= times <= MOST_FLAPS:
            raise UsageError(f"flap {times!r} times: a whole number from 1 to {MOST_FLAPS} is allowed")
        for link in links:
            self.links.forget_timers(link)
            self._fall(link, down, up, times)
        return links

    def _fall(self, link: LiveLink, down: float, up: float, times: int) -> None:
        """Down, and by itself up again, so many times."""
        self._hold_down(link)

        def rise() -> None:
            self._release(link)
            if times > 1:
                self._later(link, up, lambda: self._fall(link, down, up, times - 1))

        self._later(link, down, rise)

    def _hold_down(self, link: LiveLink) -> None:
        if link.is_up:
            self.links.set_carrier(link, up=False)
            link.held_down = True

    def _release(self, link: LiveLink) -> None:
        if link.held_down:
            self.links.set_carrier(link, up=True)
            link.held_down = False

    def _schedule(self, step: ScheduleLink) -> None:
        link = self.links.by_end[step.node, step.network]

        def begin() -> None:
            before = link.asked
            if step.lasts:
                again = (lambda: self._release(link)) if step.down else (lambda: self.links.impair(link, before))
                self._later(link, step.lasts, again)
            if step.down:
                self._hold_down(link)
            else:
                self.links.impair(link, pair_of(step.egress, step.ingress, link.port.mtu))

        self._later(link, step.at, begin)

    def _later(self, link: LiveLink, seconds: float, act: Callable[[], None]) -> None:
        """Do something to a link by itself. It must not end the lab: a failure is told by `lab link`."""

        def fire() -> None:
            link.timers.remove(timer)
            try:
                act()
            except (LabError, OSError) as error:
                link.problem = f"a change that was to happen by itself failed: {error}"

        timer = self.loop.after(seconds, fire)
        link.timers.append(timer)


def _backend(word: object) -> Backend | None:
    if word is None:
        return None
    if word not in (Backend.NETEM, Backend.TBF, Backend.LINKWIRE):
        raise UsageError(f"no backend {word!r}; netem, tbf and linkwire are")
    return Backend(str(word))
