"""The links of a running lab: what is asked of each, by what means, and changes that hold wholly or not at all."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, RealiseError
from lab.plan.link_backend import PLAIN, Abilities, Backend, Pair, choose
from lab.plan.link_name import End
from lab.plan.link_wire import seed_of
from lab.plan.step import ConnectToSwitch, CreateSwitch, ImpairLink, Plan
from lab.realise.link_counters import NOTHING, Counters, of_ports, of_wire, since
from lab.realise.link_disciplines import Disciplines
from lab.realise.link_taps import Taps
from lab.realise.link_wires import LinkWires
from lab.realise.nodes import FABRIC, Nodes
from lab.topology.impairment import UNIMPAIRED, changed, parse_words

if TYPE_CHECKING:
    from lab.realise.loop import Loop, Timer


@dataclass(slots=True, eq=False)
class LiveLink:
    """The cable between a node and a network, as it is."""

    port: ConnectToSwitch
    seed: int
    declared: Pair = PLAIN
    asked: Pair = PLAIN
    backend: Backend = Backend.NONE
    is_up: bool = True
    problem: str = ""  # why the link is not as asked
    is_cut: bool = False  # its wire is dead
    changed_at: float = 0.0  # seconds since the epoch
    counted_before: Counters = field(default_factory=dict)
    timers: list[Timer] = field(default_factory=list)  # what is still to happen by itself
    held_down: bool = False  # by a schedule or a flap, not by a person

    @property
    def name(self) -> str:
        return f"{self.port.node}:{self.port.network}"

    @property
    def end(self) -> End:
        return self.port.node, self.port.network


class Links:
    """Every link that the plan declares."""

    def __init__(self, loop: Loop, nodes: Nodes, plan: Plan) -> None:
        """Know them; `realise` makes them as declared."""
        self._nodes = nodes
        self.plan = plan
        self.cables = {step.network for step in plan.steps if isinstance(step, CreateSwitch) and step.cable}
        self.by_end: dict[End, LiveLink] = {
            (step.node, step.network): LiveLink(step, seed_of(plan.name, f"{step.node}:{step.network}"))
            for step in plan.steps
            if isinstance(step, ConnectToSwitch)
        }
        for step in plan.steps:
            if isinstance(step, ImpairLink):
                link = self.by_end[step.node, step.network]
                link.declared = pair_of(step.egress, step.ingress, link.port.mtu)
        self._taps = Taps(loop, nodes)
        self._wires = LinkWires(loop, nodes, self._wires_ended)
        self._disciplines = Disciplines(nodes)

    def realise(self) -> None:
        """Impair every link that the plan declares so.

        Raises:
            HostError: this host lacks the means.
            RealiseError: the kernel or linkwire refused.
        """
        for link in self.by_end.values():
            if link.declared != PLAIN:
                self.impair(link, link.declared)

    def reset(self) -> None:
        """Make every link as the topology declares it, and up; nothing happens by itself any more.

        Raises:
            RealiseError: some could not be made so; the others are.
        """
        failed = []
        changed = [link for link in self.by_end.values() if link.asked != link.declared or link.problem]
        for link in self.by_end.values():
            try:
                self.forget_timers(link)
                self.set_carrier(link, up=True)
                if link in changed and link.declared != PLAIN:
                    self.impair(link, link.declared)
            except (LabError, OSError) as error:
                failed.append(f"{link.name}: {error}")
        try:
            self.free([link for link in changed if link.declared == PLAIN])
        except (LabError, OSError) as error:
            failed.append(str(error))
        if failed:
            raise RealiseError("; ".join(failed))

    def impair(self, link: LiveLink, pair: Pair, wanted: Backend | None = None) -> None:
        """Have the link do this to frames from now on; a failure leaves it as it was.

        Raises:
            HostError, UsageError: as `choose`.
            RealiseError: the kernel or linkwire refused.
        """
        backend = choose(pair, self._abilities(), wanted)
        if link.is_cut:
            self._abandon(link)
        self._put(link, backend, pair)
        link.backend, link.asked, link.problem = backend, pair, ""
        link.changed_at = time.time()
        link.counted_before = self._counters([link])[link.name]

    def free(self, links: list[LiveLink]) -> None:
        """Have links leave every frame alone; wires that carry nothing any more are deleted a moment later.

        Raises:
            RealiseError: the kernel refused something for one of them; the wires are gone nevertheless.
        """
        wired = [link for link in links if link.backend is Backend.LINKWIRE]
        try:
            self._extract(wired)
        finally:
            for link in wired:
                link.backend, link.asked, link.is_cut = Backend.NONE, PLAIN, False
        for link in links:
            self.impair(link, PLAIN)

    def set_carrier(self, link: LiveLink, *, up: bool) -> None:
        """Give the node's interface its carrier, or take it.

        Raises:
            RealiseError: the kernel refused.
        """
        if link.is_up == up:
            return
        if link.port.node in self._nodes.switched_off:  # it finds the link so when it boots
            link.is_up = up
            return
        requests = self._nodes.requests_of(FABRIC)
        turn = requests.turn_on if up else requests.turn_off
        turn(link.port.port_index, f"turn link {link.name} {'on' if up else 'off'}")
        try:
            requests.send()
        except BaseException:
            self._nodes.close_requests()
            raise
        link.is_up = up
        link.changed_at = time.time()

    def replug(self, port: ConnectToSwitch) -> None:
        """Plug a node's interface into another switch; its impairments move along, and its name follows the network.

        Raises:
            RealiseError: the kernel refused.
        """
        link = next(link for link in self.by_end.values() if link.port.port_index == port.port_index)
        self._taps.replug(port)
        link.port = port
        self.by_end = {each.end: each for each in self.by_end.values()}

    def forget_timers(self, link: LiveLink) -> None:
        """Let nothing more happen to the link by itself; what had taken its carrier gives it back."""
        for timer in link.timers:
            timer.cancel()
        link.timers.clear()
        if link.held_down:
            link.held_down = False
            self.set_carrier(link, up=True)

    def facts(self, links: list[LiveLink]) -> list[dict[str, Any]]:
        """What is asked of each link and what has been measured since."""
        try:
            counters = self._counters(links)
        except RealiseError:  # linkwire is gone, which the links' problems tell
            counters = self._counters(links)
        return [
            {
                "link": link.name,
                "node": link.port.node,
                "network": link.port.network,
                "interface": link.port.interface,
                "state": "down" if not link.is_up else "cut" if link.is_cut else "up",
                "asked": dict(zip(("egress", "ingress"), texts_of(link.asked), strict=True)),
                "declared": dict(zip(("egress", "ingress"), texts_of(link.declared), strict=True)),
                "backend": str(link.backend),
                "problem": link.problem,
                "since": link.changed_at,
                "pending": len(link.timers),
                "measured": since(counters[link.name], link.counted_before),
            }
            for link in links
        ]

    def end(self) -> None:
        """Take all wires away, for the lab ends; it ends soonest that way."""
        self._taps.remove_all()

    def troubles(self) -> dict[str, Any]:
        """For `lab ps` and `lab inspect`: links that do not do what is asked of them."""
        return {"link_troubles": [f"{link.name}: {link.problem}" for link in self.by_end.values() if link.problem]}

    def _put(self, link: LiveLink, backend: Backend, pair: Pair) -> None:
        before = (link.backend, link.asked)
        if Backend.LINKWIRE is backend is link.backend:
            self._wires.change(link.port.port, pair, link.port.mtu)
        elif backend is Backend.LINKWIRE:
            self._insert(link, pair)
            self._then(lambda: self._take_away_disciplines(link), otherwise=lambda: self._extract([link]))
        elif link.backend is Backend.LINKWIRE:
            if backend is not Backend.NONE:
                self._disciplines.put(link.port, backend, pair, before=(Backend.NONE, PLAIN), seed=link.seed)
            self._extract([link])
        elif backend is Backend.NONE:
            self._take_away_disciplines(link)
        else:
            self._disciplines.put(link.port, backend, pair, before=before, seed=link.seed)

    def _take_away_disciplines(self, link: LiveLink) -> None:
        if link.backend in (Backend.NETEM, Backend.TBF):
            self._disciplines.remove(link.port, link.asked)

    def _insert(self, link: LiveLink, pair: Pair) -> None:
        """Put a wire between the port and its switch; the port moves last."""
        with self._taps.made_for(link.port, link.port.mtu) as taps:
            self._wires.attach(link.port.port, taps, pair, link.port.mtu, link.seed)
            self._then(lambda: self._taps.move_in(link.port), otherwise=lambda: self._wires.detach(link.port.port))

    def _abandon(self, link: LiveLink) -> None:
        """Take a dead wire out, so that another can be put in."""
        with contextlib.suppress(LabError):
            self._wires.detach(link.port.port)
        self._taps.remove(link.port, quietly=True)
        link.backend, link.asked, link.is_cut = Backend.NONE, PLAIN, False

    def _extract(self, links: list[LiveLink]) -> None:
        """Take wires out; the ports move first."""
        for link in links:
            with contextlib.suppress(LabError):  # `remove` tells of it
                self._taps.move_out(link.port)
            with contextlib.suppress(LabError):  # a wire that is gone is taken out too
                self._wires.detach(link.port.port)
        self._taps.remove(*(link.port for link in links))

    def _then(self, act: Any, *, otherwise: Any) -> None:
        try:
            act()
        except BaseException:
            with contextlib.suppress(LabError):
                otherwise()
            raise

    def _abilities(self) -> Abilities:
        has = self._disciplines.has
        return Abilities(netem=has(Backend.NETEM), tbf=has(Backend.TBF), no_tap=self._taps.missing())

    def _counters(self, links: list[LiveLink]) -> dict[str, Counters]:
        self._nodes.fabric.enter_network()
        with open("/proc/self/net/dev", encoding="ascii") as file:  # noqa: PTH123
            ports = of_ports(file.read())
        wired = any(link.backend is Backend.LINKWIRE and not link.is_cut for link in links)
        readings = self._wires.read() if wired else {}
        counters = {}
        for link in links:
            reading = readings.get(link.port.port) if link.backend is Backend.LINKWIRE else None
            if reading is not None and reading.get("ended"):
                self._cut(link, f"its wire ended: {reading['ended']}")
            counters[link.name] = of_wire(reading) if reading is not None else ports.get(link.port.port, NOTHING)
            for name, drops in self._disciplines.drops(link.port, link.backend).items():
                counters[link.name][name]["queue_full" if link.backend is Backend.TBF else "dropped"] = drops
        return counters

    def _wires_ended(self, why: str) -> None:
        for link in self.by_end.values():
            if link.backend is Backend.LINKWIRE:
                self._cut(link, why)

    def _cut(self, link: LiveLink, why: str) -> None:
        link.is_cut = True
        link.problem = f"{why}; the link is cut: `lab link {link.name} set ...` or `clear` mends it"


def pair_of(egress: str, ingress: str, mtu: int) -> Pair:
    """Both directions from their words."""
    meant = [changed(UNIMPAIRED, parse_words(text), mtu) for text in (egress, ingress)]
    return meant[0], meant[1]


def texts_of(pair: Pair) -> tuple[str, str]:
    """The words of both directions."""
    return pair[0].describe(), pair[1].describe()
