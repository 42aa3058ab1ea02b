"""Traffic through a mesh, and witnesses of its way that are not part of the mesh."""

from __future__ import annotations

from lab import Lab, Pair, Way, mesh_paths, wait_until

ENOUGH = 1100  # packets: after a thousand nebula tries a direct way again
MANY = 2000  # packets: half of them are more than a grid of members reports to its lighthouses in a talk, 15 a second
ARRIVING = 0.95  # of the packets at least, for a way may change while they are sent
PATIENCE = 90.0  # seconds
LONGEST_TALK = 60  # seconds
SILENCE = 5  # seconds after which a way without answers is left


def talk(lab: Lab, first: str, second: str, packets: int = ENOUGH) -> None:
    """Send so many packets from one member to the other, which answers each; all must arrive but for a few."""
    arrived = answered(lab, first, second, packets, LONGEST_TALK)
    assert arrived > ARRIVING * packets, f"{arrived} of {packets} from {first} to {second} and back"


def answered(lab: Lab, first: str, second: str, packets: int, seconds: int) -> int:
    """How many of so many packets the other member answers, within so many seconds."""
    words = ["ping", "-q", "-f", "-c", str(packets), "-w", str(seconds), f"{second}.tailnet"]
    said = lab[first].run(words, timeout=2 * LONGEST_TALK).stdout
    return int(said.partition(" packets transmitted, ")[2].split()[0])


def talk_until(lab: Lab, first: str, second: str, way: Way) -> Pair:
    """Let two members talk until both ends name that way; what they said then."""
    said: list[Pair] = []

    def is_taken() -> bool:
        answered(lab, first, second, ENOUGH, SILENCE)  # a way that has gone is found out by its silence
        said.append(mesh_paths(lab).between(first, second))
        return said[-1].way is way

    wait_until(is_taken, PATIENCE, f"the way of {first} and {second} is {way}")
    return said[-1]


def received(lab: Lab, node: str, interface: str) -> int:
    """Packets that an interface of a node has received."""
    return int(lab[node].run(["cat", f"/sys/class/net/{interface}/statistics/rx_packets"], check=True).stdout)
