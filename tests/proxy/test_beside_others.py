"""The same first bytes to edgeproxy, nginx, HAProxy and sslh: all lead alike, but for what is listed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy import first_streams
from tests.proxy.first_streams import VECTORS
from tests.proxy.known_differences import DIFFERENCES, VERSIONS, Difference
from tests.proxy.other_proxies import NONE, REFUSED, Delivered, Door, Peer, all_running, deliver

STREAMS = {
    Door.NAME: first_streams.hellos(),
    Door.SPOKEN: first_streams.spoken(),
    Door.HOST: first_streams.requests(),
    Door.HEADER: first_streams.headers(),
}
DOORS = pytest.mark.parametrize("door", STREAMS, ids=lambda door: door.name)


VERSION_COMMANDS = {"nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"], "sslh": ["sslh-select", "-V"]}


def is_known(name: str) -> bool:
    """Whether this peer is here, in the version of the table of differences; others decide some of these otherwise."""
    command = VERSION_COMMANDS[name]
    if shutil.which(command[0]) is None:
        return False
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return VERSIONS[name] in done.stdout + done.stderr


@pytest.fixture(scope="module")
def peers() -> Iterator[list[Peer]]:
    known = [name for name in VERSION_COMMANDS if is_known(name)]
    with tempfile.TemporaryDirectory(prefix="ep-") as folder, all_running(Path(folder), known) as found:
        yield found


@DOORS
def test_all_lead_alike_but_for_what_is_listed(peers: list[Peer], door: Door) -> None:
    streams = STREAMS[door]
    assert len(streams) > 30
    sent = [[stream.sent] for stream in streams]
    found = {(name, door): answers for name, answers in deliver(_at(peers, door), door, sent).items()}
    if door is Door.HEADER:
        found |= {(name, Door.TOLD): told for name, told in deliver(_at(peers, Door.TOLD), Door.TOLD, sent).items()}
    ours = found.pop(("edgeproxy", door))
    if not found:
        pytest.skip(f"none of {VERSIONS} is here")
    needed: set[Difference] = set()
    for (peer, at), theirs in found.items():
        for stream, our, their in zip(streams, ours, theirs, strict=True):
            expected = _as_far_as_it_can(_one(peers, peer), at, our)
            if _compared(peer, at, their) == expected:
                continue
            of = [row for row in DIFFERENCES if row.covers(peer.partition("-")[0], at, stream.name, their.where)]
            assert of, f"{peer} {at.name} {stream.name}: {their}, edgeproxy {our}"
            needed.update(of)
    known, doors = {peer.name.partition("-")[0] for peer in peers}, {at for _, at in found}
    listed = {row for row in DIFFERENCES if row.peer in known and row.door in doors}
    assert needed == listed, listed - needed


def _at(peers: list[Peer], door: Door) -> list[Peer]:
    return [peer for peer in peers if door in peer.doors]


def _one(peers: list[Peer], name: str) -> Peer:
    (peer,) = (peer for peer in peers if peer.name == name)
    return peer


def _as_far_as_it_can(peer: Peer, door: Door, our: Delivered) -> Delivered:
    """What a peer must do that does the same as edgeproxy, with what it knows."""
    if door is Door.SPOKEN and our.where not in {*peer.protocols, REFUSED}:
        return Delivered(NONE, our.arrived)
    return _compared(peer.name, door, our)


def _compared(peer: str, door: Door, delivered: Delivered) -> Delivered:
    """nginx tells its own address as the destination to a backend, and answers itself at two of its doors."""
    if peer == "nginx" and door is Door.HEADER:
        return Delivered(" ".join(delivered.where.split()[:2]), delivered.arrived)
    answers_itself = peer == "nginx" and door in {Door.HOST, Door.TOLD}
    return Delivered(delivered.where, b"" if answers_itself else delivered.arrived)


@DOORS
def test_where_edgeproxy_leads_does_not_depend_on_how_the_bytes_are_cut(peers: list[Peer], door: Door) -> None:
    edge = _one(peers, "edgeproxy")
    streams = [stream for stream in STREAMS[door] if stream.is_whole]
    whole = deliver([edge], door, [[stream.sent] for stream in streams])["edgeproxy"]
    cuts = [
        (stream.name, pieces, at_once)
        for stream, at_once in zip(streams, whole, strict=True)
        for pieces in stream.cuts()
        if at_once.where != NONE  # most of those take all of the time there is
    ]
    assert len(cuts) > 100
    found = deliver([edge], door, [pieces for _, pieces, _ in cuts])["edgeproxy"]
    for (name, pieces, at_once), cut in zip(cuts, found, strict=True):
        assert cut == at_once, (name, [len(piece) for piece in pieces])


def test_the_names_are_those_that_the_list_of_captures_says(peers: list[Peer]) -> None:
    rows = [line.split() for line in (VECTORS / "client_hello" / "expectations.txt").read_text().splitlines()]
    expected = {row[0].removesuffix(".bin"): row[1] for row in rows if row[0] != "#"}
    captured = [stream for stream in STREAMS[Door.NAME] if stream.name in expected]
    assert len(captured) == len(expected)
    found = deliver([_one(peers, "edgeproxy")], Door.NAME, [[stream.sent] for stream in captured])["edgeproxy"]
    led = {stream.name: one.where.replace(NONE, "-") for stream, one in zip(captured, found, strict=True)}
    assert led == expected


def test_all_streams_have_names_of_their_own() -> None:
    for streams in STREAMS.values():
        assert len({stream.name for stream in streams}) == len(streams)
