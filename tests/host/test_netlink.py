"""The requests by hand: what they ask for exists afterwards, and a refusal of the kernel's is raised."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable

import pytest

from lab.host import needs_user_namespace, netlink
from lab.host.trial import End, Outcome, begin

pytestmark = [pytest.mark.essential, pytest.mark.single_id]


def in_a_fresh_network(action: Callable[[], object]) -> Outcome:
    trial = begin(lambda: str(action()), namespaces=True, user_namespace=needs_user_namespace())
    return trial.outcome(time.monotonic() + 60)


def test_links_are_made() -> None:
    def make() -> list[str]:
        netlink.make_link("switch", "bridge")
        netlink.make_link("one", "veth", peer="two")
        netlink.set_up(socket.if_nametoindex("one"), master=socket.if_nametoindex("switch"))
        return sorted(name for _, name in socket.if_nameindex())

    assert in_a_fresh_network(make).text == "['lo', 'one', 'switch', 'two']"


@pytest.mark.parametrize(
    ("action", "number"),
    [
        (lambda: netlink.make_link("one", "nosuchkind"), errno.EOPNOTSUPP),
        (lambda: netlink.make_link("lo", "bridge"), errno.EEXIST),
        (lambda: netlink.set_up(4711), errno.ENODEV),
        (lambda: netlink.add_token_bucket(4711), errno.ENODEV),
        (lambda: netlink._add_qdisc(netlink.LOOPBACK, "nosuchqdisc", b""), errno.ENOENT),
        (lambda: netlink.add_ipv6_address(4711, "2001:db8::1"), errno.ENODEV),
    ],
)
def test_a_refusal_is_raised(action: Callable[[], object], number: int) -> None:
    outcome = in_a_fresh_network(action)
    assert (outcome.end, os.strerror(outcome.errno)) == (End.REFUSED, os.strerror(number))
