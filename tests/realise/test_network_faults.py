"""Partitions, forgetful routers and addresses that change: seen by clients, by the kernel, and gone when healed."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.errors import HostError, RealiseError, UsageError
from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.realise.conftest import Up

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   nas, laptop -- home -- router (NAT) -- access -- isp -- internet -- server
#            pc -- den -- box (natbox) --+           phone -- cafe-lan -- cafe (NAT) --+
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
  access: {prefixes: [100.64.0.0/29]}
  home: {prefixes: [192.168.1.0/24, "2001:db8:10::/64"]}
  cafe-lan: {prefixes: [10.0.0.0/24]}
  den: {prefixes: [192.168.2.0/24]}
nodes:
  server: {links: {internet: 198.51.100.10}}
  isp: {role: router, links: {internet: 198.51.100.1, access: 100.64.0.1}}
  router:
    role: router
    links: {access: 100.64.0.2, home: 192.168.1.1}
    nat: {outside: access, forwards: [{tcp: 443, to: nas}]}
  cafe: {role: router, links: {internet: 198.51.100.80, cafe-lan: 10.0.0.1}, nat: {outside: internet}}
  nas: {links: {home: 192.168.1.10}}
  laptop: {links: {home: 192.168.1.20}}
  phone: {links: {cafe-lan: 10.0.0.10}}
  box: {role: router, links: {access: 100.64.0.4, den: 192.168.2.1}, nat: {outside: access, preset: full_cone}}
  pc: {links: {den: 192.168.2.10}}
"""
SERVER = "198.51.100.10"


@pytest.fixture(scope="module")
def shared(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """The lab without a fault, and left so."""
    assert shared.fault.in_force() == []
    yield shared
    shared.heal()


@contextmanager
def connection(server: Node, client: Node, port: int, to: str | None = None) -> Iterator[tuple[socket.socket, ...]]:
    with server.listen(port) as listener, client.connect((to or server.address(), port)) as near:
        listener.settimeout(30)
        far, _ = listener.accept()
        far.settimeout(30)
        with far:
            yield near, far


def is_silent(end: socket.socket, seconds: float = 0.3) -> bool:
    end.settimeout(seconds)
    try:
        end.recv(100)
    except TimeoutError:
        return True
    finally:
        end.settimeout(60)
    return False


def pings(node: Node, to: str) -> bool:
    """Whether an answer comes, however busy this machine is."""
    return node.run(["ping", "-c1", "-w20", to]).returncode == 0


def is_unanswered(node: Node, to: str) -> bool:
    return node.run(["ping", "-c1", "-W0.3", to]).returncode != 0


def tables(lab: Lab) -> dict[str, str]:
    """The partition tables that the nodes of the lab have."""
    listed = {name: node.run(["nft", "list", "tables"], check=True).stdout for name, node in lab.nodes.items()}
    return {name: text for name, text in listed.items() if "lab_fault" in text}


def test_a_partition_cuts_flows_that_exist_and_new_ones_until_healed(lab: Lab) -> None:
    with connection(lab["server"], lab["nas"], 7001) as (near, far):
        with lab.fault.partition("nas", "server"), lab["server"].packet("internet", timeout=0.3) as wire:
            near.sendall(b"up from the nas")
            far.sendall(b"down")
            assert is_silent(near)
            assert is_silent(far)
            assert is_unanswered(lab["nas"], SERVER)
            assert is_unanswered(lab["nas"], lab["server"].address(version=6))
            assert not any(b"up from the nas" in frame for frame in frames(wire))  # it does not even leave the nas
            assert pings(lab["laptop"], SERVER)
            assert pings(lab["nas"], "192.168.1.20")
            assert sorted(tables(lab)) == ["nas", "server"]
        assert far.recv(100) == b"up from the nas"  # both kernels went on trying
        assert near.recv(10) == b"down"
    assert tables(lab) == {}
    assert pings(lab["nas"], SERVER)


def frames(wire: socket.socket) -> Iterator[bytes]:
    wire.setblocking(False)
    while True:
        try:
            yield wire.recv(2000)
        except BlockingIOError:
            return


@pytest.mark.parametrize("end", ["nas", "laptop"])
def test_a_partition_holds_at_each_end_by_itself(lab: Lab, end: str) -> None:
    with lab.fault.partition("nas", "laptop"):
        table = tables(lab)[end].split()[2]
        lab[end].run(["nft", "delete", "table", "inet", table], check=True)
        assert is_unanswered(lab["nas"], "192.168.1.20")
        assert is_unanswered(lab["laptop"], "192.168.1.10")
    assert pings(lab["nas"], "192.168.1.20")


def test_a_partition_covers_link_local_addresses_and_what_is_said_to_all(lab: Lab) -> None:
    local = f"{link_local(lab['laptop'])}%home"
    assert pings(lab["nas"], local)
    with lab["laptop"].udp(7002) as heard:
        shout(lab["nas"])
        assert heard.recv(10) == b"all"
        with lab.fault.partition("nas", "laptop"):
            shout(lab["nas"])
            assert is_silent(heard)
            assert is_unanswered(lab["nas"], local)


def link_local(node: Node) -> str:
    told = node.run(["ip", "-6", "-br", "address", "show", "scope", "link"], check=True).stdout
    return told.split()[2].partition("/")[0]


def shout(node: Node) -> None:
    with node.socket(kind=socket.SOCK_DGRAM, options=[(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)]) as sender:
        sender.sendto(b"all", ("192.168.1.255", 7002))


def test_a_network_can_be_a_side_and_its_own_router_still_forwards(lab: Lab) -> None:
    with lab.fault.partition("home", "server"):
        assert is_unanswered(lab["nas"], SERVER)
        assert is_unanswered(lab["laptop"], SERVER)
        assert pings(lab["router"], SERVER)  # from its address on access, which is not of home
        assert pings(lab["nas"], "100.64.0.1")
        assert pings(lab["nas"], "192.168.1.20")


def test_a_node_can_be_parted_from_its_own_network(lab: Lab) -> None:
    with lab.fault.partition("nas", "home"):
        assert is_unanswered(lab["nas"], "192.168.1.20")
        assert pings(lab["nas"], "192.168.1.10")  # itself
        assert pings(lab["laptop"], "192.168.1.1")
        assert pings(lab["nas"], SERVER)  # the router passes it on without being spoken to


@pytest.mark.parametrize(
    ("sides", "why"),
    [
        (("nas", "phone"), r"NAT hides nas and phone .* `lab link nas:home down` or `lab link phone:cafe-lan down`"),
        (("home", "cafe-lan"), "NAT hides home and cafe-lan from each other"),
        (("nas", "sever"), "no node or network is called 'sever'; did you mean 'server'?"),
        (("nas", "nas"), "nas cannot be parted from itself"),
    ],
)
def test_a_partition_that_cannot_be_is_refused(lab: Lab, sides: tuple[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        lab.fault.partition(*sides)
    assert tables(lab) == {}


def test_the_same_partition_is_refused_whichever_side_comes_first(lab: Lab) -> None:
    with (
        lab.fault.partition("nas", "server"),
        pytest.raises(UsageError, match="partition nas server is in force already"),
    ):
        lab.fault.partition("server", "nas")


def test_a_partition_that_fails_at_one_end_is_taken_back_at_the_other(lab: Lab) -> None:
    with lab.fault.kill("phone") as fault:  # tells the number of the next fault
        following = f"lab_fault{fault.number + 1}"
    # In the way: a table of that name with an owner, which nobody else may change (nft(8), TABLES).
    blocker = lab["server"].start(["nft", "-i"], stdin=subprocess.PIPE)
    assert blocker.stdin is not None
    with blocker:
        blocker.stdin.write(f"add table inet {following} {{ flags owner; }}\n")
        blocker.stdin.flush()
        wait_until(lambda: following in tables(lab).get("server", ""), 30, "the table is in the way")
        with pytest.raises(HostError, match="node server: nft refused"):
            lab.fault.partition("nas", "server")
        assert "nas" not in tables(lab)
        assert lab.fault.in_force() == []
    assert pings(lab["nas"], SERVER)


def mapping(client: socket.socket, server: socket.socket) -> tuple[str, int]:
    client.sendto(b"?", (SERVER, server.getsockname()[1]))
    peer: tuple[str, int] = server.recvfrom(10)[1]
    return peer


def flows(lab: Lab, port: int) -> list[str]:
    told = lab["router"].run(["conntrack", "-L", "-p", "udp"], check=True).stdout
    return [line for line in told.splitlines() if f"dport={port} " in line]


def test_a_router_that_is_flushed_lets_nothing_in_of_what_went_out(lab: Lab) -> None:
    with lab["server"].udp(7003) as server, lab["nas"].udp(40000) as client:
        peer = mapping(client, server)
        server.sendto(b"back", peer)
        assert client.recv(10) == b"back"
        assert len(flows(lab, 7003)) == 1
        lab.fault.flush_nat("router")
        assert flows(lab, 7003) == []
        server.sendto(b"late", peer)
        assert is_silent(client)
        assert mapping(client, server)[0] == "100.64.0.2"  # it works on, with a mapping anew
    assert lab.fault.in_force() == []


def outside(lab: Lab) -> list[str]:
    told = lab["router"].run(["ip", "-4", "-br", "address", "show", "dev", "access"], check=True).stdout
    return told.split()[2:]


def routes(lab: Lab) -> str:
    return lab["router"].run(["ip", "route"], check=True).stdout


def test_a_changed_address_is_all_that_others_see_until_healed(lab: Lab) -> None:
    before = routes(lab)
    assert outside(lab) == ["100.64.0.2/29"]
    with lab.fault.change_address("router"):
        assert outside(lab) == ["100.64.0.3/29"]
        assert "default via 100.64.0.1 dev access" in routes(lab)
        with lab["server"].udp(7004) as server, lab["nas"].udp() as client:
            peer = mapping(client, server)
            assert peer[0] == "100.64.0.3"
            server.sendto(b"back", peer)
            assert client.recv(10) == b"back"
        with lab["nas"].listen(443) as listener:
            lab["server"].connect(("100.64.0.3", 443)).close()
            listener.accept()[0].close()
            with pytest.raises(OSError, match=r"timed out|No route"):
                lab["server"].connect(("100.64.0.2", 443), timeout=0.3)
        assert lab["router"].address("access") == "100.64.0.3"
        assert lab["router"].facts["nat"]["pool"] == ["100.64.0.3"]
        assert lab["router"].facts["forwards"][0]["addresses"] == ["100.64.0.3"]
        again = Lab(lab.name)
        assert again["router"].address("access") == "100.64.0.3"
        again.close()
        assert b"100.64.0.3 router" in lab["isp"].read("/etc/hosts")
    assert outside(lab) == ["100.64.0.2/29"]
    assert routes(lab) == before
    assert lab["router"].address("access") == "100.64.0.2"
    assert b"100.64.0.2 router" in lab["isp"].read("/etc/hosts")
    with lab["nas"].listen(443) as listener:
        lab["server"].connect(("100.64.0.2", 443)).close()
        listener.accept()[0].close()


def test_connections_of_the_old_address_die(lab: Lab) -> None:
    with connection(lab["server"], lab["nas"], 7005) as (near, far), lab.fault.change_address("router"):
        near.sendall(b"from a stranger")
        near.settimeout(30)
        with pytest.raises(ConnectionResetError):
            near.recv(10)
        assert is_silent(far)


def test_connections_of_a_forward_at_the_old_address_are_forgotten(lab: Lab) -> None:
    with connection(lab["nas"], lab["server"], 443, to="100.64.0.2"):
        known = ["conntrack", "-L", "-p", "tcp", "--orig-dst", "100.64.0.2"]
        assert "dport=443" in lab["router"].run(known, check=True).stdout
        with lab.fault.change_address("router"):
            assert "dport=443" not in lab["router"].run(known, check=True).stdout


def test_the_new_address_may_be_given_and_may_last_a_while(lab: Lab) -> None:
    lab.fault.change_address("router", "100.64.0.6", seconds=10)
    assert outside(lab) == ["100.64.0.6/29"]
    wait_until(lambda: outside(lab) == ["100.64.0.2/29"], 60, "the old address is back")
    lab.refresh()
    assert lab["router"].address("access") == "100.64.0.2"


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        (("router", "100.64.0.1"), "100.64.0.1 is taken by isp; allowed: a free address of 100.64.0.0/29"),
        (("router", "100.64.0.7"), "100.64.0.7 is no address of a host in 100.64.0.0/29"),
        (("router", "192.0.2.1"), "192.0.2.1 is no address of a host in 100.64.0.0/29"),
        (("router", "next"), "'next' is no IPv4 address"),
        (("nas",), "nas has no NAT, and so no outside; routers with NAT: router, cafe, box"),
        (("rooter",), "no node is called 'rooter'; did you mean 'router'?"),
    ],
)
def test_an_address_that_is_not_to_be_had_is_refused(lab: Lab, targets: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        lab.fault.change_address(*targets)
    assert why in str(caught.value)
    assert outside(lab) == ["100.64.0.2/29"]


def test_an_address_changes_once_until_healed(lab: Lab) -> None:
    with lab.fault.change_address("router"), pytest.raises(UsageError, match="address of router has changed already"):
        lab.fault.change_address("router", "100.64.0.5")
    with pytest.raises(UsageError, match="nas has no NAT"):
        lab.fault.flush_nat("nas")


def test_a_change_that_the_kernel_refuses_half_way_is_taken_back(lab: Lab) -> None:
    """The new address is there already, by hand, when the old one has gone; the router was told to keep it."""
    router, rules = lab["router"], ["nft", "list", "ruleset"]
    promote = "/proc/sys/net/ipv4/conf/all/promote_secondaries"
    router.run(["sh", "-c", f"echo 1 > {promote}; ip address add 100.64.0.6/29 dev access"], check=True)
    try:
        before = router.run(rules, check=True).stdout
        with pytest.raises(RealiseError, match=r"address router:access 100\.64\.0\.6/29: .*exists"):
            lab.fault.change_address("router", "100.64.0.6")
        assert sorted(outside(lab)) == ["100.64.0.2/29", "100.64.0.6/29"]
        assert "default via 100.64.0.1 dev access" in routes(lab)
        assert router.run(rules, check=True).stdout == before
        lab.refresh()
        assert router.address("access") == "100.64.0.2"
        assert b"100.64.0.2 router" in lab["isp"].read("/etc/hosts")
        assert lab.fault.in_force() == []
    finally:
        router.run(["ip", "address", "del", "100.64.0.6/29", "dev", "access"], check=True)
        router.run(["sh", "-c", f"echo 0 > {promote}"], check=True)
    assert pings(lab["nas"], SERVER)


def test_a_partition_holds_for_the_address_that_a_router_gets_later(lab: Lab) -> None:
    with lab.fault.partition("router", "server"):
        with lab.fault.change_address("router"):
            assert is_unanswered(lab["router"], SERVER)
            assert "100.64.0.3" in lab["server"].run(["nft", "list", "ruleset"], check=True).stdout
        assert is_unanswered(lab["router"], SERVER)
    assert pings(lab["router"], SERVER)


def test_natbox_forgets_its_mappings_too(lab: Lab) -> None:
    with lab["server"].udp(7010) as server, lab["pc"].udp(40000) as client:
        peer = mapping(client, server)
        assert peer[0] == "100.64.0.4"
        server.sendto(b"back", peer)
        assert client.recv(10) == b"back"
        lab.fault.flush_nat("box")
        server.sendto(b"late", peer)
        assert is_silent(client)
        assert mapping(client, server)[0] == "100.64.0.4"


def test_natbox_is_started_with_its_new_address(lab: Lab) -> None:
    with lab["server"].udp(7011) as server, lab["pc"].udp(40001) as client:
        assert mapping(client, server)[0] == "100.64.0.4"
        with lab.fault.change_address("box", "100.64.0.6"):
            peer = mapping(client, server)
            assert peer[0] == "100.64.0.6"
            server.sendto(b"back", peer)
            assert client.recv(10) == b"back"
            assert b"100.64.0.6" in lab["box"].read("/run/lab/services/nat/natbox.json")
        assert mapping(client, server)[0] == "100.64.0.4"
    assert [each["state"] for each in lab.services()] == ["ready"]
