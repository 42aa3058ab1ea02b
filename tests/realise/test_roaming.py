"""A host that moves: its interface stays, all that hangs on the place changes, and back home it is as declared."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from ipaddress import ip_interface
from typing import Any

import pytest

from lab.errors import UsageError
from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.realise.conftest import Up, open_files

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   nas, laptop -- home -- router (NAT) -- internet -- server;  phone, pad -- cafe-lan -- cafe (NAT) -- internet
dns: [names]
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
  home: {prefixes: [192.168.1.0/24, "2001:db8:10::/64"]}
  cafe-lan: {prefixes: [10.0.0.0/29], mtu: 1400}
  guest-lan: {prefixes: [10.0.1.0/24, "2001:db8:20::/64"]}
  wire: {prefixes: [10.9.0.0/31], point_to_point: true}
nodes:
  server: {links: {internet: 198.51.100.10}}
  names: {links: {internet: 198.51.100.53, home: 192.168.1.53}}
  router: {role: router, links: {internet: 198.51.100.1, home: 192.168.1.1}, nat: {outside: internet}}
  cafe: {role: router, links: {internet: 198.51.100.80, cafe-lan: 10.0.0.1}, nat: {outside: internet}}
  guests: {role: router, links: {internet: 198.51.100.90, guest-lan: 10.0.1.1}}
  nas: {links: {home: 192.168.1.10}, services: {web: {run: python3 -m http.server 80, ready: {tcp: 80}}}}
  laptop: {links: {home: 192.168.1.20}, routes: [{to: 203.0.113.0/24, via: 192.168.1.10}]}
  phone: {links: {cafe-lan: 10.0.0.2}}
  pad: {links: {cafe-lan: auto, internet: auto}}
  one: {links: {wire: auto}}
  other: {links: {wire: auto}}
"""
HOMES = {"laptop": "home", "nas": "home", "phone": "cafe-lan"}


@pytest.fixture(scope="module")
def shared(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """The lab with everybody at home, and left so."""
    yield shared
    shared.heal()
    for node, home in HOMES.items():
        if home not in {link["network"] for link in shared[node].facts["interfaces"]}:
            shared.move(node, home)


def told(lab: Lab, node: str, *command: str) -> str:
    return lab[node].run(list(command), check=True).stdout


def everything(lab: Lab) -> dict[str, Any]:
    """What the kernel and the files of every node say of addresses, routes and names."""
    commands = [("ip", "-br", "address"), ("ip", "route"), ("ip", "-6", "route"), ("ip", "-br", "link")]
    found: dict[str, Any] = {
        name: [sorted(told(lab, name, *command).splitlines()) for command in commands]
        + [node.read("/etc/hosts"), node.read("/etc/resolv.conf")]
        for name, node in lab.nodes.items()
    }
    return found | {"facts": lab.facts["nodes"]}


def at_rest(lab: Lab) -> dict[str, Any]:
    """As `everything`, once the kernel has told of every carrier: routes are not `linkdown`, interfaces not DOWN."""
    found: dict[str, Any] = {}

    def is_at_rest() -> bool:
        found.update(everything(lab))
        return not re.search("linkdown|DOWN", str(found))

    wait_until(is_at_rest, 30, "every interface is up")
    return found


def assert_is(lab: Lab, before: dict[str, Any]) -> None:
    """All is as before, once the kernel has told of every carrier."""
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: everything(lab) == before, 30, "all is as it was")
    assert everything(lab) == before


def pings(lab: Lab, node: str, to: str) -> bool:
    """Whether an answer comes, however busy this machine is."""
    return lab[node].run(["ping", "-c1", "-w20", to]).returncode == 0


def is_unanswered(lab: Lab, node: str, to: str) -> bool:
    return lab[node].run(["ping", "-c1", "-W0.3", to]).returncode != 0


def test_away_it_has_address_routes_and_names_of_the_place_and_back_all_is_as_it_was(lab: Lab) -> None:
    before = at_rest(lab)
    changes = int(lab["laptop"].read("/sys/class/net/home/carrier_changes"))
    mac = lab["laptop"].read("/sys/class/net/home/address")
    lab.move("laptop", "cafe-lan")
    (link,) = lab["laptop"].facts["interfaces"]
    assert (link["name"], link["network"], link["addresses"]) == ("home", "cafe-lan", ["10.0.0.4/29"])
    assert told(lab, "laptop", "ip", "-br", "address", "show", "dev", "home").split()[2] == "10.0.0.4/29"
    assert lab["laptop"].read("/sys/class/net/home/address") == mac
    assert int(lab["laptop"].read("/sys/class/net/home/carrier_changes")) == changes + 2
    routes = [
        "default via 10.0.0.1 dev home proto static ",
        "10.0.0.0/29 dev home proto kernel scope link src 10.0.0.4 ",
    ]
    # The kernel tells of a new carrier some time after it has it.
    wait_until(lambda: told(lab, "laptop", "ip", "route").splitlines() == routes, 30, "these are its routes")
    assert lab["laptop"].read("/etc/resolv.conf") == b"nameserver 198.51.100.53\n"
    assert b"10.0.0.2 phone" in lab["laptop"].read("/etc/hosts")
    assert b"nas" not in lab["laptop"].read("/etc/hosts")
    assert b"10.0.0.4 laptop" in lab["phone"].read("/etc/hosts")
    assert b"laptop" not in lab["nas"].read("/etc/hosts")
    lab.move("laptop", "home")
    assert_is(lab, before)
    assert "203.0.113.0/24 via 192.168.1.10" in told(lab, "laptop", "ip", "route")


def test_away_it_reaches_and_is_reached_as_one_who_lives_there(lab: Lab) -> None:
    assert pings(lab, "laptop", "192.168.1.10")
    lab.move("laptop", "cafe-lan")
    assert pings(lab, "laptop", "10.0.0.2")
    assert pings(lab, "phone", lab["laptop"].address())
    with lab["server"].udp(7001) as server, lab["laptop"].udp() as client:
        client.sendto(b"?", ("198.51.100.10", 7001))
        assert server.recvfrom(10)[1][0] == "198.51.100.80"  # the café's NAT
    assert is_unanswered(lab, "nas", "192.168.1.20")


def test_its_connections_die(lab: Lab) -> None:
    with lab["nas"].listen(7002) as listener, lab["laptop"].connect(("192.168.1.10", 7002)) as near:
        far, _ = listener.accept()
        with far:
            lab.move("laptop", "cafe-lan")
            far.settimeout(0.5)
            near.settimeout(0.5)
            far.sendall(b"where are you?")
            with pytest.raises(OSError, match=r"timed out|unreachable|assign|No route"):
                near.recv(10)


def test_the_frames_of_the_place_fit(lab: Lab) -> None:
    lab.move("laptop", "cafe-lan")
    assert int(lab["laptop"].read("/sys/class/net/home/mtu")) == 1400
    lab.move("laptop", "guest-lan")
    assert int(lab["laptop"].read("/sys/class/net/home/mtu")) == 1500


def test_where_there_is_ipv6_it_has_that_too_spelled_like_its_ipv4_address(lab: Lab) -> None:
    lab.move("laptop", "guest-lan")
    assert [str(address) for address in lab["laptop"].addresses()] == ["10.0.1.2/24", "2001:db8:20::2/64"]
    assert pings(lab, "server", "2001:db8:20::2")
    assert pings(lab, "laptop", lab["server"].address(version=6))


def test_its_services_move_with_it(lab: Lab) -> None:
    (pid,) = [each["pid"] for each in lab.services()]
    lab.move("nas", "cafe-lan")
    lab["phone"].connect(("nas", 80)).close()
    (again,) = [each["pid"] for each in lab.services()]
    assert pid == again


def test_two_who_move_to_one_place_differ_and_leave_free_what_is_declared(lab: Lab) -> None:
    lab.move("phone", "home")
    lab.move("nas", "cafe-lan")
    lab.move("laptop", "cafe-lan")
    everybody = [
        str(ip_interface(a).ip) for n in lab.nodes.values() for i in n.facts["interfaces"] for a in i["addresses"]
    ]
    assert len(everybody) == len(set(everybody))
    assert "10.0.0.2" not in everybody  # the phone's, which will come back
    lab.move("phone", "cafe-lan")
    assert lab["phone"].address() == "10.0.0.2"
    assert pings(lab, "phone", lab["nas"].address())
    assert pings(lab, "laptop", "10.0.0.2")


def test_other_handles_learn_of_it(lab: Lab) -> None:
    other = Lab(lab.name)
    lab.move("laptop", "cafe-lan")
    assert other["laptop"].address() == "192.168.1.20"
    other.refresh()
    assert other["laptop"].address() == "10.0.0.4"
    other.close()


def test_who_is_switched_off_while_moving_boots_at_the_new_place(lab: Lab) -> None:
    with lab.fault.kill("laptop"):
        lab.move("laptop", "cafe-lan")
        assert lab["laptop"].read("/sys/class/net/home/carrier") == b"0\n"
    assert pings(lab, "laptop", "10.0.0.2")


def test_a_link_that_is_cut_stays_cut_whoever_moves_or_boots(lab: Lab) -> None:
    lab.link("laptop:home").down()
    lab.move("laptop", "cafe-lan")
    with lab.fault.kill("laptop"):
        pass
    assert lab["laptop"].read("/sys/class/net/home/carrier") == b"0\n"
    lab.link("laptop:cafe-lan").up()
    assert pings(lab, "laptop", "10.0.0.2")


def test_a_node_that_is_off_has_no_carrier_whatever_becomes_of_its_link(lab: Lab) -> None:
    link, carrier = lab.link("laptop:home"), "/sys/class/net/home/carrier"
    with lab.fault.kill("laptop"):
        link.down()
        link.up()
        assert lab["laptop"].read(carrier) == b"0\n"
        link.down()
    assert lab["laptop"].read(carrier) == b"0\n"
    with lab.fault.kill("laptop"):
        link.up()
        assert lab["laptop"].read(carrier) == b"0\n"
    assert lab["laptop"].read(carrier) == b"1\n"
    assert pings(lab, "laptop", "192.168.1.10")


def test_an_impaired_link_goes_with_who_moves(lab: Lab) -> None:
    lab.link("laptop:home").impair(delay="30ms")
    lab.move("laptop", "cafe-lan")
    assert round_trip(lab, "laptop", "10.0.0.2") >= 60
    lab.move("laptop", "home")
    assert round_trip(lab, "laptop", "192.168.1.10") >= 60
    lab.heal()
    wait_until(lambda: round_trip(lab, "laptop", "192.168.1.10") < 60, 30, "a round trip is short")


def round_trip(lab: Lab, node: str, to: str) -> float:
    """Milliseconds, the least of three."""
    return float(told(lab, node, "ping", "-c3", "-i0.2", "-w20", "-q", to).rpartition(" = ")[2].split("/")[0])


def test_a_partition_goes_with_who_moves(lab: Lab) -> None:
    with lab.fault.partition("laptop", "server"):
        lab.move("laptop", "cafe-lan")
        assert is_unanswered(lab, "laptop", "198.51.100.10")
        assert pings(lab, "phone", "198.51.100.10")
    assert pings(lab, "laptop", "198.51.100.10")


def test_a_move_that_fails_leaves_everything_as_it_was(lab: Lab) -> None:
    """At the end of the move it turns out that a partition cannot be kept up; by then all else was done."""
    lab.move("phone", "home")
    with lab.fault.partition("laptop", "phone"), lab.fault.partition("laptop", "server"):
        before = at_rest(lab)
        rules = [told(lab, name, "nft", "list", "ruleset") for name in lab.nodes]
        with pytest.raises(UsageError, match="the partition of laptop and phone could not be kept up: NAT hides"):
            lab.move("phone", "cafe-lan")
        assert_is(lab, before)
        assert [told(lab, name, "nft", "list", "ruleset") for name in lab.nodes] == rules
        lab.refresh()
        assert lab["phone"].addresses()[0] in ip_interface("192.168.1.0/24").network


@pytest.mark.parametrize(
    ("node", "network", "leaving", "why"),
    [
        ("lapptop", "home", None, "no node is called 'lapptop'; did you mean 'laptop'?"),
        ("laptop", "cafelan", None, "no network is called 'cafelan'; did you mean 'cafe-lan'?"),
        ("laptop", "home", None, "laptop is attached to home already"),
        ("router", "cafe-lan", None, "router is a router; only hosts move"),
        ("pad", "home", None, "pad has several links; say which it leaves: cafe-lan, internet"),
        ("laptop", "cafe-lan", "internet", "laptop is not attached to 'internet'; say which it leaves: home"),
        ("laptop", "wire", None, "wire is a cable, and both its ends are taken: one, other"),
    ],
)
def test_who_cannot_go_there_is_told_why(lab: Lab, node: str, network: str, leaving: str | None, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        lab.move(node, network, leaving=leaving)
    assert why in str(caught.value)


def test_of_several_links_the_one_that_is_named_moves(lab: Lab) -> None:
    internet = lab["pad"].address("internet")
    lab.move("pad", "home", leaving="cafe-lan")
    assert lab["pad"].address("internet") == internet
    assert pings(lab, "pad", "192.168.1.10")
    lab.move("pad", "cafe-lan", leaving="home")
    assert lab["pad"].address("cafe-lan") == "10.0.0.3"


def test_a_place_without_a_free_address_takes_nobody(lab: Lab) -> None:
    for node in ("laptop", "nas", "server"):
        lab.move(node, "cafe-lan")
    try:
        with pytest.raises(UsageError, match=r"cafe-lan has no free address left in 10\.0\.0\.0/29 for one"):
            lab.move("one", "cafe-lan")
    finally:
        lab.move("server", "internet")


@pytest.mark.parametrize(("address", "witness"), [("10.0.1.2", "guests"), ("2001:db8:20::2", "guests")])
def test_who_comes_to_an_address_that_another_had_is_known_at_once(lab: Lab, address: str, witness: str) -> None:
    lab.move("laptop", "guest-lan")
    assert pings(lab, witness, address)
    before = told(lab, witness, "ip", "neigh", "show", address)
    lab.move("laptop", "home")
    lab.move("nas", "guest-lan")
    assert address in {str(each.ip) for each in lab["nas"].addresses()}
    assert pings(lab, witness, address)
    assert told(lab, witness, "ip", "neigh", "show", address).split()[4] != before.split()[4]


@pytest.mark.root
def test_a_move_costs_no_descriptors(lab: Lab) -> None:
    """Ten moves would cost ten: those that one question holds for a moment are fewer."""
    lab.move("laptop", "cafe-lan")
    lab.move("laptop", "home")
    before = open_files(lab)
    for _ in range(5):
        lab.move("laptop", "cafe-lan")
        lab.move("laptop", "home")
    wait_until(lambda: open_files(lab) < before + 4, 30, f"the supervisor holds {before} open files again")
