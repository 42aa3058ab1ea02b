"""edgeproxy, nginx, HAProxy and sslh, told to do the same at the same ports; what each does with a stream of bytes.

Behind all of them stands one echo, which says first at which of its ports it was met: so a client learns where it was
led, and that its bytes arrived as they were sent.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path

from lab.realise.asking import wait_until
from tests.proxy import first_streams
from tests.proxy.running import OPERATION, own_address, running

DEADLINE = 60.0  # seconds, for one client among hundreds
AT_ONCE = 40  # clients of one proxy
UNDECIDED = 6  # seconds, after which each proxy decides with what it has
REFUSED = "refused"
NONE = "none"  # where what names nothing, or nothing that is known, is led


class Door(Enum):
    """One port of each proxy, and the question that it answers."""

    NAME = 8001  # of a TLS hello
    SPOKEN = 8002  # protocol
    HOST = 8003  # of HTTP/1
    HEADER = 8004  # of PROXY: who the client is
    TOLD = 8005  # nginx alone: the endpoints of a header in its own words


BACKENDS = {
    Door.NAME: {NONE: 9000} | {name: 9001 + at for at, name in enumerate(first_streams.NAMES)},
    Door.SPOKEN: {NONE: 9100} | {name: 9101 + at for at, name in enumerate(first_streams.PROTOCOLS)},
    Door.HOST: {NONE: 9200} | {name: 9201 + at for at, name in enumerate(first_streams.HOSTS)},
    Door.HEADER: {NONE: 9300},
}
_LABELS = {port: label for ports in BACKENDS.values() for label, port in ports.items()}


@dataclass(frozen=True)
class Peer:
    """One of the proxies, at an address of its own."""

    name: str
    here: str
    doors: frozenset[Door]
    protocols: frozenset[str] = frozenset()  # that it tells from others


@dataclass(frozen=True)
class Delivered:
    """What became of a stream: where it was led, or `refused`; and what arrived there."""

    where: str
    arrived: bytes = b""


@contextmanager
def all_running(folder: Path, others: Collection[str]) -> Iterator[list[Peer]]:
    """edgeproxy first, then these."""
    behind = own_address()
    edge = own_address()
    peers = [Peer("edgeproxy", edge, frozenset(Door) - {Door.TOLD}, frozenset(first_streams.PROTOCOLS))]
    with ExitStack() as stack:
        stack.enter_context(_echoes(behind))
        stack.enter_context(running(_edgeproxy(behind), edge))
        for peer, argv, text in _others(folder, behind):
            if peer.name.partition("-")[0] not in others:
                continue
            (folder / peer.name).write_text(text)
            process = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            stack.callback(process.kill)
            _wait_for(peer, process)
            peers.append(peer)
        yield peers


def _others(folder: Path, behind: str) -> list[tuple[Peer, list[str], str]]:
    nginx = Peer("nginx", own_address(), frozenset({*Door}), frozenset({"tls"}))
    haproxy = Peer("haproxy", own_address(), frozenset(Door) - {Door.TOLD}, frozenset({"tls", "ssh", "http1"}))
    sslh = Peer("sslh", own_address(), frozenset({Door.NAME, Door.SPOKEN}), frozenset(first_streams.PROTOCOLS))
    configurations = {nginx: _nginx(folder, nginx.here, behind), haproxy: _haproxy(haproxy.here, behind)}
    found = [
        (nginx, ["nginx", "-c", f"{folder}/nginx", "-e", f"{folder}/nginx.log"], configurations[nginx]),
        (haproxy, ["haproxy", "-db", "-q", "-f", f"{folder}/haproxy"], configurations[haproxy]),
    ]
    # sslh knows no ports: one process for each door.
    for door in sorted(sslh.doors, key=lambda door: door.value):
        file = Peer(f"sslh-{door.name}", sslh.here, frozenset({door}), sslh.protocols)
        found.append((file, ["sslh-select", "-f", f"-F{folder}/{file.name}"], _sslh(sslh.here, behind, door)))
    return found


def _wait_for(peer: Peer, process: subprocess.Popen[bytes]) -> None:
    def listens() -> bool:
        assert process.poll() is None, f"{peer.name} has ended"
        heard = Path("/proc/net/tcp").read_text()
        address = "".join(f"{int(part):02X}" for part in reversed(peer.here.split(".")))
        return all(f" {address}:{door.value:04X} 00000000:0000 0A" in heard for door in peer.doors)

    wait_until(listens, DEADLINE, f"{peer.name} listens")


# What each of them is told.


def _edgeproxy(behind: str) -> str:
    listeners = "".join(f'[listener.{door.name}]\ntcp = ["HERE:{door.value}"]\n' for door in BACKENDS)
    listeners += 'proxy_header = [{from = "127.0.0.0/8", policy = "require"}]\n'
    rules = "".join(
        f'[[rule]]\nlisteners = ["{door.name}"]\n{condition}\nto = "{door.name}-{port}"\n'
        for door, ports in BACKENDS.items()
        for label, port in [*list(ports.items())[1:], (NONE, ports[NONE])]
        for condition in [_condition(door, label)]
    )
    backends = "".join(
        f'[backend.{door.name}-{port}]\ntargets = ["{behind}:{port}"]\n'
        + ('send_proxy = "v1"\n' if door is Door.HEADER else "")
        for door, ports in BACKENDS.items()
        for port in ports.values()
    )
    return f'{listeners}{rules}{backends}[timeouts]\npreface = "{UNDECIDED}s"\nheader = "{UNDECIDED}s"\n{OPERATION}'


def _condition(door: Door, label: str) -> str:
    if label == NONE:
        return ""
    if door is Door.SPOKEN:
        return f'protocols = ["{label}"]'
    kind = "tls" if door is Door.NAME else "http1"
    return f"protocols = [\"{kind}\"]\nserver_name = '^{label.replace('.', '[.]')}$'"


def _nginx(folder: Path, here: str, behind: str) -> str:
    names = " ".join(f"{name} {behind}:{port};" for name, port in BACKENDS[Door.NAME].items() if name != NONE)
    spoken = BACKENDS[Door.SPOKEN]
    none = {door: f"{behind}:{ports[NONE]}" for door, ports in BACKENDS.items()}
    hosts = "".join(
        f'server {{ listen {here}:{Door.HOST.value}; server_name {name}; return 200 "{name}\\n"; }}\n'
        for name in first_streams.HOSTS
    )
    temporary = " ".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
stream {{
  preread_timeout {UNDECIDED}s; proxy_protocol_timeout {UNDECIDED}s;
  map $ssl_preread_server_name $by_name {{ {names} default {none[Door.NAME]}; }}
  map $ssl_preread_protocol $by_protocol {{ "" {none[Door.SPOKEN]}; default {behind}:{spoken["tls"]}; }}
  server {{ listen {here}:{Door.NAME.value}; ssl_preread on; proxy_pass $by_name; }}
  server {{ listen {here}:{Door.SPOKEN.value}; ssl_preread on; proxy_pass $by_protocol; }}
  server {{ listen {here}:{Door.HEADER.value} proxy_protocol; set_real_ip_from 127.0.0.0/8;
    proxy_protocol on; proxy_pass {none[Door.HEADER]}; }}
  server {{ listen {here}:{Door.TOLD.value} proxy_protocol; return
    "$proxy_protocol_addr,$proxy_protocol_port,$proxy_protocol_server_addr,$proxy_protocol_server_port\\n"; }}
}}
http {{
  access_log off; {temporary}
  client_header_timeout {UNDECIDED}s; keepalive_timeout 0;
  server {{ listen {here}:{Door.HOST.value} default_server; return 200 "{NONE}\\n"; }}
  {hosts}
}}
"""


def _haproxy(here: str, behind: str) -> str:
    known = {
        "tls": "req.ssl_hello_type 1",
        "ssh": "req.payload(0,4) -m str SSH-",
        "http1": "req.proto_http",
    }
    accepted = {
        Door.NAME: ["req.ssl_hello_type 1"],
        Door.SPOKEN: list(known.values()),
        Door.HOST: ["req.hdr(host) -m found"],
        Door.HEADER: [],
    }
    text = """
global
  maxconn 2000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
"""
    for door, ports in BACKENDS.items():
        bound = " accept-proxy" if door is Door.HEADER else ""
        text += f"frontend {door.name}\n  bind {here}:{door.value}{bound}\n"
        text += f"  tcp-request inspect-delay {UNDECIDED}s\n" if accepted[door] else f"  timeout client {UNDECIDED}s\n"
        text += "".join(f"  tcp-request content accept if {{ {test} }}\n" for test in accepted[door])
        for label, port in ports.items():
            test = {
                Door.NAME: f"req.ssl_sni -i {label}",
                Door.SPOKEN: known.get(label),
                Door.HOST: f"req.hdr(host),field(1,:),lower {label}",
                Door.HEADER: None,
            }[door]
            if test and label != NONE:
                text += f"  use_backend {door.name}-{port} if {{ {test} }}\n"
        text += f"  default_backend {door.name}-{ports[NONE]}\n"
        sent = " send-proxy" if door is Door.HEADER else ""
        for port in ports.values():
            text += f"backend {door.name}-{port}\n  server one {behind}:{port}{sent}\n"
    return text


def _sslh(here: str, behind: str, door: Door) -> str:
    def protocol(name: str, port: int, more: str = "") -> str:
        return f'{{ name: "{name}"; host: "{behind}"; port: "{port}"; {more} }}'

    ports = BACKENDS[door]
    if door is Door.NAME:
        known = [protocol("tls", port, f'sni_hostnames: ["{name}"];') for name, port in ports.items() if name != NONE]
    else:
        words = {"http1": "http"}
        known = [protocol(words.get(name, name), port) for name, port in ports.items() if name != NONE]
    known.append(protocol("anyprot", ports[NONE]))
    return (
        f'verbose: 0; foreground: true; numeric: true; timeout: {UNDECIDED}; on-timeout: "anyprot";\n'
        f'listen: ( {{ host: "{here}"; port: "{door.value}"; }} );\n'
        f"protocols: ( {', '.join(known)} );\n"
    )


# The echo behind them, and the clients before them.


@contextmanager
def _echoes(behind: str) -> Iterator[None]:
    """In a thread with a loop of its own."""
    started, ends = threading.Event(), []

    async def serve() -> None:
        stop = asyncio.Event()
        ends.append((asyncio.get_running_loop(), stop))
        servers = [await asyncio.start_server(_echo, behind, port, backlog=1024) for port in _LABELS]
        started.set()
        await stop.wait()
        for server in servers:
            server.close()

    thread = threading.Thread(target=asyncio.run, args=[serve()], daemon=True)
    thread.start()
    assert started.wait(DEADLINE)
    try:
        yield
    finally:
        loop, stop = ends[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(DEADLINE)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    port = writer.get_extra_info("sockname")[1]
    writer.write(_LABELS[port].encode() + b"\n")
    try:
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def deliver(peers: list[Peer], door: Door, streams: list[list[bytes]]) -> dict[str, list[Delivered]]:
    """Each stream, in its pieces, to each of the proxies, by a client of its own; many at the same time."""

    async def one(peer: Peer, few: asyncio.Semaphore, pieces: list[bytes]) -> Delivered:
        async with few:
            return await _client(peer, door, pieces)

    async def all_of(peer: Peer) -> list[Delivered]:
        few = asyncio.Semaphore(AT_ONCE)
        found = await asyncio.gather(*(one(peer, few, pieces) for pieces in streams))
        if not peer.name.startswith("sslh"):
            return found
        # It drops some of many that come at once (seen with 1.20): those are asked again when nobody else is there.
        return [await _alone(peer, door, pieces, first) for pieces, first in zip(streams, found, strict=True)]

    async def everybody() -> list[list[Delivered]]:
        return await asyncio.gather(*(all_of(peer) for peer in peers))

    return {peer.name: found for peer, found in zip(peers, asyncio.run(everybody()), strict=True)}


async def _alone(peer: Peer, door: Door, pieces: list[bytes], found: Delivered) -> Delivered:
    for _ in range(5):
        if found.where != REFUSED:
            break
        found = await _client(peer, door, pieces)
    return found


async def _client(peer: Peer, door: Door, pieces: list[bytes]) -> Delivered:
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection(peer.here, door.value)
        own = writer.get_extra_info("sockname")
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if door is Door.HEADER:
                return await _who(reader, own, b"".join(pieces))
            if door is Door.TOLD:
                said = (await reader.readline()).decode().strip()
                return Delivered(_told(said.split(","), own) if said else REFUSED)
            if door is Door.HOST and peer.name == "nginx":
                return _of_response(await reader.read())
            where = (await reader.readline()).decode().strip()
            arrived = await reader.readexactly(sum(map(len, pieces))) if where else b""
            return Delivered(where or REFUSED, arrived)
        except (ConnectionError, asyncio.IncompleteReadError):
            return Delivered(REFUSED)
        finally:
            writer.close()


async def _who(reader: asyncio.StreamReader, own: tuple[str, int], sent: bytes) -> Delivered:
    """The client that the header to the backend tells, and what follows it."""
    if not await reader.readline():
        return Delivered(REFUSED)
    line = (await reader.readuntil(b"\r\n")).decode().split()
    arrived = b""
    if sent.endswith(first_streams.END):
        arrived = await reader.readuntil(first_streams.END)
    # PROXY, family, both addresses, both ports (its specification, 2.1).
    return Delivered(_told([line[2], line[4], line[3], line[5]] if len(line) == 6 else [""], own), arrived)


def _told(ends: list[str], own: tuple[str, int]) -> str:
    """Client and destination; `itself` where the client is the one that is connected."""
    is_itself = not ends[0] or ends[:2] == [own[0], str(own[1])]
    return "itself" if is_itself else " ".join(_in_one_form(word) for word in ends)


def _in_one_form(word: str) -> str:
    """Of an address; nginx says nothing for the port 0."""
    try:
        return str(ip_address(word))
    except ValueError:
        return word or "0"


def _of_response(response: bytes) -> Delivered:
    head, _, body = response.partition(b"\r\n\r\n")
    return Delivered(body.decode().strip()) if head.startswith(b"HTTP/1.1 200") else Delivered(REFUSED)
