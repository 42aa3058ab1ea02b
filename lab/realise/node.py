"""A node of a running lab: sockets that belong to it, programs run in it, its addresses and files."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import IO, TYPE_CHECKING, Any

from lab.errors import UsageError
from lab.realise.asking import wait_until
from lab.realise.running import Process, start_process

if TYPE_CHECKING:
    from lab.realise.lab import Lab

Socket = socket.socket
SocketAddress = tuple[str, int]
_BACKLOG = 128
_TAIL = 2000  # characters of what a program complained of that its error quotes
_ALL_ETHERNET = 0x0003  # ETH_P_ALL (packet(7))


class Node:
    """One machine of a lab. Addresses are given as ("192.0.2.10", 443), or a node's name in place of the address."""

    def __init__(self, lab: Lab, facts: dict[str, Any]) -> None:
        """Wrap what the lab says of the node."""
        self.lab = lab
        self.name: str = facts["name"]
        self.facts = facts

    def __repr__(self) -> str:
        return f"<node {self.name} of lab {self.lab.name}>"

    def addresses(self, network: str | None = None) -> list[IPv4Interface | IPv6Interface]:
        """The node's addresses with their prefix lengths, of all networks, or of one network or mesh.

        Raises:
            UsageError: the node is not attached to that network.
        """
        links = [link for link in self.facts["interfaces"] if network in (None, link["network"])]
        meshes = [mesh for mesh in self.lab.facts["meshes"] if mesh["name"] == network]
        own = [member["address"] for mesh in meshes for member in mesh["members"] if member["node"] == self.name]
        if own:
            return [ip_interface(address) for address in own]
        if not links and network is not None:
            known = ", ".join(link["network"] for link in self.facts["interfaces"])
            raise UsageError(f"{self.name} is not attached to {network!r}; it is to {known or 'nothing'}")
        return [ip_interface(address) for link in links for address in link["addresses"]]

    def address(self, network: str | None = None, version: int = 4) -> str:
        """Its first address of an IP version, on one network or on any, as text without prefix length.

        Raises:
            UsageError: it has none.
        """
        for found in self.addresses(network):
            if found.version == version:
                return str(found.ip)
        raise UsageError(f"{self.name} has no IPv{version} address{f' on {network}' if network else ''}")

    def socket(
        self,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        protocol: int = 0,
        *,
        options: Sequence[tuple[int, int, int | str]] = (),
        bind: Sequence[Any] | None = None,
        listen: int | None = None,
    ) -> Socket:
        """A socket of this node, in this process.

        Args:
            family: as for `socket.socket`, AF_PACKET too.
            kind: as for `socket.socket`.
            protocol: as for `socket.socket`.
            options: (level, option, value) triples set before it is bound, with the node's privilege
                (IP_TRANSPARENT, SO_BINDTODEVICE...).
            bind: a socket address to bind, also to ports below 1024.
            listen: the backlog of a listening socket.

        Raises:
            OSError: as the kernel answers.
        """
        _, (descriptor,) = self.lab.ask(
            {
                "ask": "socket",
                "node": self.name,
                "family": int(family),
                "type": int(kind),
                "protocol": protocol,
                "options": [list(option) for option in options],
                "bind": None if bind is None else list(bind),
                "listen": listen,
            }
        )
        return socket.socket(fileno=descriptor)

    def connect(
        self, to: SocketAddress, timeout: float | None = 10.0, *, source: SocketAddress | None = None
    ) -> Socket:
        """A TCP connection from this node; `timeout` (seconds) holds for it and for the socket afterwards.

        Raises:
            OSError: refused, unreachable, timed out.
        """
        host = self._host(to[0])
        made = self.socket(_family(host), bind=source)
        try:
            made.settimeout(timeout)
            made.connect((host, to[1]))
        except BaseException:
            made.close()
            raise
        return made

    def listen(self, port: int = 0, address: str = "", *, backlog: int = _BACKLOG) -> Socket:
        """A listening TCP socket in this node; on all addresses of both IP versions unless one is given."""
        options = [(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)]
        host = self._host(address) if address else "::"
        if not address:
            options.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0))
        return self.socket(_family(host), options=options, bind=(host, port), listen=backlog)

    def udp(self, port: int = 0, address: str = "", *, timeout: float | None = 10.0) -> Socket:
        """A UDP socket bound in this node; IPv4 unless an IPv6 address is given."""
        host = self._host(address) if address else "0.0.0.0"  # noqa: S104 - all addresses of a node of the lab
        made = self.socket(_family(host), socket.SOCK_DGRAM, bind=(host, port))
        made.settimeout(timeout)
        return made

    def packet(self, interface: str, *, timeout: float | None = 10.0) -> Socket:
        """A raw socket that sees and sends whole Ethernet frames on an interface (packet(7))."""
        made = self.socket(socket.AF_PACKET, socket.SOCK_RAW, bind=(interface, _ALL_ETHERNET))
        made.settimeout(timeout)
        return made

    async def open_connection(self, to: SocketAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """`asyncio.open_connection` from this node."""
        host = self._host(to[0])
        made = self.socket(_family(host))
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, (host, to[1]))
            return await asyncio.open_connection(sock=made)
        except BaseException:
            made.close()
            raise

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> Process:
        """Start a program in this node; it ends with the returned object. Streams as for `subprocess.Popen`."""
        return start_process(
            self.lab,
            {
                "ask": "run",
                "node": self.name,
                "argv": list(argv),
                "environment": dict(env or {}),
                "folder": cwd,
                "user": user,
                "terminal": None,
            },
            (stdin, stdout, stderr),
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 30.0,
        check: bool = False,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in this node to its end, as `subprocess.run` with captured text.

        Raises:
            TimeoutError: it did not end within `timeout` seconds; it has been killed.
            subprocess.CalledProcessError: it failed and `check` was given; a note quotes the end of its errors.
            RealiseError: it could not be started.
        """
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        options: dict[str, Any] = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.start(argv, env=env, cwd=cwd, user=user, **options) as process:
            output, complaints = process.communicate(input, timeout)
            code = process.wait(timeout)
        if check and code != 0:
            error = subprocess.CalledProcessError(code, list(argv), output, complaints)
            error.add_note(f"{self.name}: its standard error ends with:\n{complaints[-_TAIL:].rstrip() or '(nothing)'}")
            raise error
        return subprocess.CompletedProcess(list(argv), code, output, complaints)

    def read(self, path: str) -> bytes:
        """The content of a file as this node sees it.

        Raises:
            OSError: as the kernel answers.
        """
        _, (descriptor,) = self.lab.ask({"ask": "open", "node": self.name, "path": path})
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def log(self, service: str) -> str:
        """What a service of this node has written so far."""
        return self.lab.log(self.name, service)

    def is_bound(self, port: int, protocol: str = "tcp", address: str = "") -> bool:
        """Whether a program of this node listens (tcp) or is bound (udp) at the port."""
        question = {"ask": "bound", "node": self.name, "protocol": protocol, "port": port, "address": address}
        return bool(self.lab.ask(question)[0]["bound"])

    def wait_bound(self, port: int, protocol: str = "tcp", address: str = "", *, timeout: float = 10.0) -> None:
        """Wait until `is_bound`.

        Raises:
            TimeoutError: it was not within so many seconds.
        """
        wait_until(lambda: self.is_bound(port, protocol, address), timeout, f"{protocol} {port} is open in {self.name}")

    def wait_log(self, service: str, text: str, *, timeout: float = 10.0) -> None:
        """Wait until the log of a service holds the text, be it written already or later.

        Raises:
            TimeoutError: it did not within so many seconds.
        """
        wait_until(lambda: text in self.log(service), timeout, f"{text!r} is in the log of {self.name}/{service}")

    def _host(self, host: str) -> str:
        """An address as it is; a node's name as its address on a network shared with it, else its first."""
        if host not in self.lab.nodes:
            return host
        other = self.lab.nodes[host]
        shared = {link["network"] for link in self.facts["interfaces"]}
        links = sorted(other.facts["interfaces"], key=lambda link: link["network"] not in shared)
        for link in links:
            for address in link["addresses"]:
                return str(ip_interface(address).ip)
        raise UsageError(f"{host} has no address")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
