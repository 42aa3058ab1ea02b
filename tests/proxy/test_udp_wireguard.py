"""A WireGuard tunnel whose packets go through a proxy, while its configuration and its process change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.running import DEADLINE, edgeproxy, running_in
from tests.proxy.udp_bench import drops, flows
from tests.realise.conftest import Up

TOPOLOGY = """
networks:
  outside: {prefixes: [192.0.2.0/24]}
  inside: {prefixes: [10.0.0.0/24]}
nodes:
  roamer: {links: {outside: [192.0.2.7]}}
  home: {links: {outside: [192.0.2.1], inside: [10.0.0.1]}}
  hub: {links: {inside: [10.0.0.9]}}
"""
TEXT = """
[listener.in]
udp = ["192.0.2.1:51820"]
[[rule]]
name = "NUMBER"
to = "b"
[backend.b]
targets = ["10.0.0.9:51820"]
"""
RELOADS = 20


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@contextmanager
def tunnel_end(node: Node, own: str, key: str, *words: str) -> Iterator[None]:
    """The interface wg0 of a node, by wireguard-go, which has one peer."""
    with node.start(["wireguard-go", "-f", "wg0"]):
        wait_until(lambda: node.run(["wg", "show", "wg0"]).returncode == 0, DEADLINE, "the interface")
        node.run(["wg", "set", "wg0", "private-key", "/dev/stdin", *words], input=key, check=True)
        for rest in (["address", "add", own, "dev", "wg0"], ["link", "set", "wg0", "up"]):
            node.run(["ip", *rest], check=True)
        yield


def test_a_tunnel_lives_through_reloads_and_an_upgrade_and_begins_anew_between_them(lab: Lab, folder: Path) -> None:
    roamer, home, hub = (lab[name] for name in ("roamer", "home", "hub"))
    keys = [roamer.run(["wg", "genkey"], check=True).stdout for _ in range(2)]
    public = [roamer.run(["wg", "pubkey"], input=key, check=True).stdout.strip() for key in keys]
    to_hub = ["peer", public[1], "allowed-ips", "10.9.0.0/24", "endpoint", "192.0.2.1:51820"]

    def passes() -> None:
        roamer.run(["ping", "-c", "1", "-W", "50", "10.9.0.9"], check=True, timeout=DEADLINE)
        hub.run(["ping", "-c", "1", "-W", "50", "10.9.0.7"], check=True, timeout=DEADLINE)

    with ExitStack() as stack:
        proxy = stack.enter_context(running_in(home, TEXT, "127.0.0.1", folder))
        listens = ["listen-port", "51820", "peer", public[0], "allowed-ips", "10.9.0.7/32"]
        stack.enter_context(tunnel_end(hub, "10.9.0.9/24", keys[1], *listens))
        stack.enter_context(tunnel_end(roamer, "10.9.0.7/24", keys[0], *to_hub))
        for number in range(RELOADS):
            passes()
            if number % 5 == 4:
                # The next packet begins with a handshake.
                roamer.run(["wg", "set", "wg0", "peer", public[1], "remove"], check=True)
                roamer.run(["wg", "set", "wg0", *to_hub], check=True)
            proxy.reload(TEXT.replace("NUMBER", f"{number}"))
        passes()
        assert flows(proxy) == 1, "all of it is one flow"
        assert drops(proxy) == {}
        with (folder / "stderr.2").open("w") as stderr:
            command = [edgeproxy(), "run", "-c", str(proxy.config), "--take-over"]
            stack.enter_context(home.start(command, stderr=stderr))
        wait_until(lambda: "edgeproxy: ready" in (folder / "stderr.2").read_text(), DEADLINE, "the upgrade")
        passes()
        assert flows(proxy) == 1, "the same one"
        assert drops(proxy) == {}
