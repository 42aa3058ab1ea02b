"""A link of a running lab as a Python object: impair it, cut it, and see what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.realise.lab import Lab

Value = str | Mapping[str, str]


class Link:
    """`NODE:NETWORK`, or all links of a network by its name.

    What it is told to do to frames holds until it is told otherwise, for frames that come from then on. A change that
    fails leaves all as it was.
    """

    def __init__(self, lab: Lab, name: str) -> None:
        """Name the link.

        Raises:
            UsageError: the lab has no such link.
        """
        self.lab = lab
        self.name = name
        self.show()

    def __repr__(self) -> str:
        return f"<link {self.name} of lab {self.lab.name}>"

    def impair(
        self, *, from_: str | None = None, preset: str | None = None, backend: str | None = None, **words: Value
    ) -> None:
        """Change what it does to frames; what is not named stays.

        Args:
            from_: only what this node sends; both directions otherwise.
            preset: a kind of access (`dsl`, `lte`...) in place of all that was.
            backend: netem, tbf or linkwire, instead of the best one.
            words: as in a topology: ``delay="40ms", loss="1%"``.

        Raises:
            UsageError: an unknown word or value, or words that contradict each other.
            HostError: this host has no means for it.
        """
        text = " ".join(f"{name}={_text(value)}" for name, value in words.items())
        self._ask("set", words=text, preset=preset, backend=backend, **{"from": from_})

    @contextlib.contextmanager
    def impaired(
        self, *, from_: str | None = None, preset: str | None = None, backend: str | None = None, **words: Value
    ) -> Iterator[Link]:
        """As `impair` for a ``with`` block; then all is as before."""
        before = self.show()
        self.impair(from_=from_, preset=preset, backend=backend, **words)
        try:
            yield self
        finally:
            self._ask("restore", states=before)

    def clear(self, *, from_: str | None = None) -> None:
        """Leave every frame alone, or those that one node sends."""
        self._ask("clear", **{"from": from_})

    def down(self) -> None:
        """Take the carrier of the node's interface; of a network's name, of all nodes on it."""
        self._ask("carrier", up=False)

    def up(self) -> None:
        """Give the carrier back."""
        self._ask("carrier", up=True)

    @contextlib.contextmanager
    def cut(self) -> Iterator[Link]:
        """As `down` for a ``with`` block; then all is as before."""
        before = self.show()
        self.down()
        try:
            yield self
        finally:
            self._ask("restore", states=before)

    def flap(self, *, down: str = "1s", up: str = "5s", times: int = 1) -> None:
        """Go down and up again by itself, so many times; `down`, `up` and any change end it."""
        self._ask("flap", down=down, up=up, times=times)

    def show(self) -> list[dict[str, Any]]:
        """Each link of the name: what is asked of it, by what means, what has been measured since the last change.

        The keys: link, node, network, interface, state (up, down, cut), asked, declared, measured (each with egress
        and ingress), backend, problem, since (seconds since the epoch), pending (changes that will come by themselves).
        """
        return self._ask("show")

    def _ask(self, do: str, **more: Any) -> list[dict[str, Any]]:
        links: list[dict[str, Any]] = self.lab.ask({"ask": "link", "do": do, "name": self.name, **more})[0]["links"]
        return links


def _text(value: Value) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={each}" for key, each in value.items())
    if not str(value) or " " in str(value):
        raise UsageError(f"{value!r} as a value of a link; quantities are text with their unit, as '40ms'")
    return value
