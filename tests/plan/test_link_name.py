"""Names of links: what each means, and which direction a sender picks."""

from __future__ import annotations

import pytest

from lab.errors import UsageError
from lab.plan.link_name import BOTH, directions_named, links_named

#   nas, tv -- home -- router -- isp-home (a cable) -- isp
ENDS = [("router", "home"), ("router", "isp-home"), ("isp", "isp-home"), ("nas", "home"), ("tv", "home")]
CABLES = {"isp-home"}
OUT, IN = ("egress",), ("ingress",)


@pytest.mark.parametrize(
    ("name", "sender", "meant"),
    [
        ("nas:home", None, [(("nas", "home"), BOTH)]),
        ("nas:home", "nas", [(("nas", "home"), OUT)]),
        ("home", None, [(("router", "home"), BOTH), (("nas", "home"), BOTH), (("tv", "home"), BOTH)]),
        ("home", "tv", [(("tv", "home"), OUT)]),
        ("isp-home", None, [(("router", "isp-home"), BOTH)]),
        ("isp-home", "router", [(("router", "isp-home"), OUT)]),
        ("isp-home", "isp", [(("router", "isp-home"), IN)]),
        ("isp:isp-home", None, [(("isp", "isp-home"), BOTH)]),
        ("isp:isp-home", "router", [(("isp", "isp-home"), IN)]),
    ],
)
def test_a_name_means_links_and_directions(name: str, sender: str | None, meant: object) -> None:
    assert directions_named(name, sender, ENDS, CABLES) == meant


def test_all_of_a_cable_is_both_ends() -> None:
    both = directions_named("isp-home", None, ENDS, CABLES, all_of_cable=True)
    assert both == [(("router", "isp-home"), BOTH), (("isp", "isp-home"), BOTH)]
    sent = directions_named("isp-home", "isp", ENDS, CABLES, all_of_cable=True)
    assert sent == [(("isp", "isp-home"), OUT), (("router", "isp-home"), IN)]
    assert links_named("isp-home", ENDS) == [("router", "isp-home"), ("isp", "isp-home")]


@pytest.mark.parametrize(
    ("name", "sender", "why"),
    [
        ("hom", None, "no link 'hom' in this lab; it has router:home, .*, home, isp-home; did you mean 'home'?"),
        ("nas:isp-home", None, "no link 'nas:isp-home'"),
        ("nas:home", "tv", "tv is no sender of link nas:home; it may be nas"),
        ("home", "isp", "isp is no sender of link home; it may be router, nas, tv"),
        ("isp-home", "rooter", "it may be router, isp; did you mean 'router'?"),
    ],
)
def test_other_names_are_refused_with_those_there_are(name: str, sender: str | None, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        directions_named(name, sender, ENDS, CABLES)
