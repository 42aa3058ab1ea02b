"""What clients ask of a running lab: its state, sockets and files of its nodes, processes in them, its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, NoReturn

from lab.errors import LabError, RealiseError, UsageError
from lab.realise.bound_ports import is_bound
from lab.realise.loop import Loop
from lab.realise.message import Message, receive, send
from lab.realise.nodes import Nodes
from lab.realise.process import Command, start
from lab.realise.services import Services

_MAPPED_USER = 0  # the lab's owner as seen from inside: itself if root, mapped to root otherwise
_MOST_CLIENTS = 1024
_MOST_REFUSED = 64  # connections beyond, which are told why nothing is answered; more are just closed
_PAUSE_AFTER_REFUSAL = 0.1  # seconds


@dataclass(slots=True, eq=False)
class Client:
    """One connection; at most one process at a time, which ends with it."""

    channel: socket.socket
    pid: int | None = None
    refused: bool = False  # one too many
    holds_lab: bool = False  # the lab ends with this connection
    on_leave: list[Callable[[], None]] = field(default_factory=list)  # to do when it ends


Answer = tuple[Message, list[int]]
"""What a client is told, and descriptors for it, which are closed here once they are sent."""
Handler = Callable[[Client, Message, list[int]], Answer]
"""Answers one kind of request, given the message and the descriptors that came with it."""


@dataclass(slots=True)
class Requests:
    """Serves the lab's clients, one message at a time."""

    loop: Loop
    nodes: Nodes
    services: Services
    facts: Message
    started: float = field(default_factory=time.time)
    clients: set[Client] = field(default_factory=set)
    _handlers: dict[str, Handler] = field(default_factory=dict)
    _tellers: list[Callable[[], Message]] = field(default_factory=list)
    _endings: list[Callable[[], None]] = field(default_factory=list)

    def serve(self, handlers: dict[str, Handler]) -> None:
        """Answer these requests too, each by the word after "ask"."""
        self._handlers |= handlers

    def tell(self, teller: Callable[[], Message]) -> None:
        """Have this too in what the lab says of itself (`inspect`)."""
        self._tellers.append(teller)

    def at_end(self, call: Callable[[], None]) -> None:
        """Make the call before a lab that was asked to end does; one that is killed does not wait for it."""
        self._endings.append(call)

    def accept_from(self, door: socket.socket) -> Callable[[], None]:
        """The call to make when someone knocks."""

        def accept() -> None:
            try:
                channel, _ = door.accept()
            except (BlockingIOError, ConnectionError):
                return  # level-triggered: whoever else waits is told of again
            except OSError:  # no descriptor left, say: let others end before asking again
                self.loop.forget(door)
                self.loop.after(_PAUSE_AFTER_REFUSAL, lambda: self.loop.on_readable(door, accept))
                return
            channel.setblocking(False)
            if not _is_owner(channel):
                channel.close()
                return
            if len(self.clients) >= _MOST_CLIENTS + _MOST_REFUSED:
                channel.close()
                return
            client = Client(channel, refused=len(self.clients) >= _MOST_CLIENTS)
            self.clients.add(client)
            self.loop.on_readable(channel, lambda: self._spoke(client))

        return accept

    def _spoke(self, client: Client) -> None:
        try:
            received = receive(client.channel)
        except (OSError, ValueError):
            received = None
        if received is None:
            self._leave(client)
            return
        message, descriptors = received
        sent: list[int] = []
        try:
            reply, sent = self._answer(client, message, descriptors)
        except LabError as error:
            reply = {"error": str(error), "kind": type(error).__name__}
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            reply = {"error": f"{error.strerror}{where}", "kind": "OSError", "errno": error.errno or 0}
        except Exception as error:  # noqa: BLE001 - whatever a client asks, the lab of all others lives on
            reply = {"error": f"not a request that this lab understands: {error!r}", "kind": "UsageError"}
        finally:
            _close(descriptors)
        try:
            send(client.channel, reply | {"number": message.get("number")}, tuple(sent))
        except OSError:  # gone, or not reading: it will not learn the answer to anything
            self._leave(client)
        finally:
            _close(sent)

    def _answer(self, client: Client, message: Message, descriptors: list[int]) -> Answer:
        if client.refused:
            raise RealiseError(f"this lab has {_MOST_CLIENTS} connections, its most; close some of them")
        match message["ask"]:
            case "inspect":
                return self._inspect(), []
            case "socket":
                return {}, [self._socket(message)]
            case "bound":
                place = self.nodes.place(message["node"])
                return {"bound": is_bound(place, message["protocol"], message["port"], message["address"])}, []
            case "run":
                return self._run(client, message, descriptors)
            case "signal-process":
                if client.pid is not None:
                    os.killpg(client.pid, _signal(message["signal"]))
                return {}, []
            case "signal-service":
                self.services.signal(message["service"], _signal(message["signal"]))
                return {}, []
            case "log":
                return {}, [self._log(message["service"])]
            case "open":
                return {}, [self._open(message["node"], message["path"])]
            case "hold":
                client.holds_lab = bool(message["hold"])
                return {}, []
            case "down":
                send(client.channel, {"down": True, "number": message.get("number")})
                return self._end()
            case other if other in self._handlers:
                return self._handlers[other](client, message, descriptors)
            case other:
                raise UsageError(f"no request is called {other!r}; this lab was started by another version of lab?")

    def _end(self) -> NoReturn:
        try:
            for call in self._endings:
                call()
        finally:
            os._exit(0)

    def _inspect(self) -> Message:
        told = {**self.facts, "started": self.started, "states": self.services.states()}
        for teller in self._tellers:
            told |= teller()
        return told

    def _socket(self, message: Message) -> int:
        """A socket in a node, with what needs privilege there already done."""
        place = self.nodes.place(message["node"])
        with place.socket(message["family"], message["type"], message["protocol"]) as made:
            for level, option, value in message["options"]:
                made.setsockopt(level, option, value if isinstance(value, int) else value.encode())
            if message["bind"] is not None:
                made.bind(_bindable(message["family"], message["bind"]))
            if message["listen"] is not None:
                made.listen(message["listen"])
            return made.detach()

    def _run(self, client: Client, message: Message, descriptors: list[int]) -> Answer:
        if client.pid is not None:
            raise UsageError("this connection already has a process; open another one")
        place = self.nodes.running_place(message["node"])
        if not message["argv"]:
            raise UsageError("no program to run: the list of words is empty")
        size = message["terminal"]
        command = Command(
            argv=tuple(message["argv"]),
            environment=tuple(message["environment"].items()),
            folder=message["folder"],
            user=message["user"],
            terminal=size is not None,
        )
        if size is None:
            stdin, stdout, stderr = descriptors
            client.pid = start(place, command, (stdin, stdout, stderr))
            sent = []
        else:
            window = struct.pack("HHHH", *size, 0, 0)
            master, slave = pty.openpty()
            try:
                fcntl.ioctl(slave, termios.TIOCSWINSZ, window)
                client.pid = start(place, command, (slave, slave, slave))
            except BaseException:
                os.close(master)
                raise
            finally:
                os.close(slave)
            sent = [master]
        self.loop.on_exit(client.pid, lambda code: self._process_ended(client, code))
        return {"pid": client.pid}, sent

    def _process_ended(self, client: Client, code: int) -> None:
        client.pid = None
        if client in self.clients:
            try:
                send(client.channel, {"exit": code})
            except OSError:  # the end of the connection tells as much as can be told
                self._leave(client)

    def _log(self, name: str) -> int:
        return self.services.named(name).files.read_log()

    def _open(self, node: str, path: str) -> int:
        """Open a file as the node sees it."""
        place = self.nodes.place(node)
        try:
            place.enter()
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        finally:
            self.nodes.return_home()

    def _leave(self, client: Client) -> None:
        if client not in self.clients:  # left already, in the same turn of the loop
            return
        if client.holds_lab:
            self._end()
        self.loop.forget(client.channel)
        client.channel.close()
        self.clients.discard(client)
        for call in reversed(client.on_leave):
            call()
        if client.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(client.pid, signal.SIGKILL)


def _bindable(family: int, address: list[Any]) -> tuple[Any, ...]:
    """A socket address whose host is an address: looking up a name would hold up the whole lab."""
    host = str(address[0]).partition("%")[0]
    if host and family in (socket.AF_INET, socket.AF_INET6):
        try:
            ip_address(host)
        except ValueError as error:
            raise UsageError(f"{address[0]!r} is no IP address, and a socket is bound to one") from error
    return tuple(address)


def _signal(number: int) -> int:
    if number not in signal.valid_signals():
        raise UsageError(f"{number} is no signal; `kill -l` lists them")
    return number


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _is_owner(channel: socket.socket) -> bool:
    """Whether the peer is the user that the lab belongs to (unix(7), SO_PEERCRED)."""
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    _, user, _ = struct.unpack("iII", credentials)
    return bool(user == _MAPPED_USER)
