"""Ask a product: send each header with something behind it, and see at its backend what came through."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address

from lab.conform.cases import Case
from lab.conform.header import read
from lab.errors import ProbeError, UsageError

_AT_ONCE = 16  # connections
_CONNECT = 10.0  # seconds
_BETWEEN_PIECES = 0.002  # seconds
_MOST = 128 * 1024  # bytes that are read of a connection at the backend
_TOKEN = re.compile(rb"conform-[0-9a-f]{16}\n")
_UNSEEN = "taken; its backend is not told from whom"

Address = tuple[str, int]


@dataclass(frozen=True)
class Outcome:
    """What a product did with a case.

    `is_told`: its backend learnt of a client, so that could be judged. `is_unchanged`: its backend got what was sent.
    """

    case: Case
    did: str
    holds: bool
    is_told: bool = False
    is_unchanged: bool = False


@dataclass
class _Backend:
    """What has arrived behind the product, by the token that came with it."""

    arrived: dict[bytes, asyncio.Future[bytes]] = field(default_factory=dict)
    connections: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        self.connections.add(writer)
        with contextlib.suppress(OSError):
            while len(data) < _MOST and (more := await reader.read(_MOST)):
                data += more
                found = _TOKEN.search(data)
                waiting = self.arrived.pop(found[0], None) if found else None
                if found and waiting and not waiting.done():
                    waiting.set_result(data[: found.end()])
        self.connections.discard(writer)
        writer.close()

    def end(self) -> None:
        """Whoever keeps a connection is not waited for."""
        for writer in self.connections:
            writer.transport.abort()


def conform(
    to: Address,
    backend: Address,
    cases: Sequence[Case],
    *,
    patience: float,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Outcome]:
    """Ask a product at `to`, which leads to `backend`, where this listens; the outcomes in the order of the cases.

    Args:
        to: where the product takes PROXY headers, from whomever this host's connections come from.
        backend: where it connects to; to be free.
        cases: what it is asked.
        patience: seconds after which what has not come does not come.
        progress: told how many have been answered.

    Raises:
        ProbeError: nobody takes connections at `to`.
        UsageError: `backend` cannot be listened at.
    """
    return asyncio.run(_conform(to, backend, cases, patience, progress))


async def _conform(
    to: Address, backend: Address, cases: Sequence[Case], patience: float, progress: Callable[[int], None]
) -> list[Outcome]:
    behind, turns, answered = _Backend(), asyncio.Semaphore(_AT_ONCE), 0

    async def one(case: Case) -> Outcome:
        nonlocal answered
        async with turns:
            outcome = await _ask(case, to, behind, patience)
        answered += 1
        progress(answered)
        return outcome

    try:
        server = await asyncio.start_server(behind.serve, *backend)
    except OSError as error:
        where = f"{backend[0]}:{backend[1]}"
        raise UsageError(f"the backend {where}: {error.strerror}; it must be free, and this host's") from error
    async with server:
        try:
            found = await asyncio.gather(*(one(case) for case in cases))
        finally:
            behind.end()
    return _without_unread(found)


def _without_unread(found: list[Outcome]) -> list[Outcome]:
    """A header of the product's own may be the very one that it got; not of one that adds none where none came."""
    if not any(each.is_unchanged and not each.case.sent for each in found):
        return found
    return [
        replace(each, did="passed on unread", holds=False, is_told=False) if each.is_unchanged else each
        for each in found
    ]


async def _ask(case: Case, to: Address, behind: _Backend, patience: float) -> Outcome:
    token = f"conform-{secrets.token_hex(8)}\n".encode()
    arrived = behind.arrived[token] = asyncio.get_running_loop().create_future()
    try:
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_connection(*to)
    except OSError as error:
        raise ProbeError(f"{to[0]}:{to[1]}: {error.strerror or 'no answer'}; the product must listen there") from error
    try:
        own: Address = writer.get_extra_info("sockname")[:2]
        ended = asyncio.ensure_future(_converse(reader, writer, case, token))
        await asyncio.wait({arrived, ended}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not arrived.done():
            return Outcome(case, "refused" if ended.done() else "nothing came", holds=case.must.may_refuse)
        return _judged(case, arrived.result(), token, own)
    finally:
        behind.arrived.pop(token, None)
        ended.cancel()
        writer.transport.abort()


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, case: Case, token: bytes) -> None:
    """Say it, and listen until the product ends the connection."""
    with contextlib.suppress(OSError):
        size = case.pieces or max(1, len(case.sent))
        for at in range(0, len(case.sent), size):
            writer.write(case.sent[at : at + size])
            await writer.drain()
            await asyncio.sleep(_BETWEEN_PIECES if case.pieces else 0)
        writer.write(token)
        while await reader.read(_MOST):
            pass


def _judged(case: Case, arrived: bytes, token: bytes, own: Address) -> Outcome:
    outcome = partial(Outcome, case, is_unchanged=arrived == case.sent + token)
    may_take, is_own = case.must.may_take, case.client is None
    if arrived == token:
        return outcome(_UNSEEN if may_take else "taken", holds=may_take)
    try:
        found = read(arrived)
    except ValueError:
        found = None
    if found is None or found[1] != token:
        return outcome(f"taken, with {len(arrived) - len(token)} bytes before what was said", holds=False)
    client = found[0]
    expected = own if case.client is None else case.client
    if client is None:
        return outcome("taken, from nobody", holds=may_take and is_own, is_told=True)
    if _text(client) != _text(expected):
        return outcome(f"taken, from {_text(client)}", holds=False, is_told=True)
    told = "taken, from the sender itself" if is_own else "taken, from whom it says"
    return outcome(told, holds=may_take, is_told=True)


def _text(of: Address) -> str:
    """An IPv4 address within IPv6 is that IPv4 address."""
    address = ip_address(of[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return f"[{address}]:{of[1]}" if address.version == 6 else f"{address}:{of[1]}"
