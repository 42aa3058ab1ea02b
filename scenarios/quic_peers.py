"""An HTTP/3 server and its client (aioquic) in the test's process, each on a socket of a node."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from tempfile import NamedTemporaryFile
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ProtocolNegotiated, QuicEvent
from aioquic.quic.packet import pull_quic_header

from lab import Lab

PATIENCE = 60.0  # seconds
_SERVICE = "/run/lab/services/web"
_TRUSTED = "/etc/ssl/certs/ca-certificates.crt"

Seen = set[tuple[str, int]]
Question = tuple[str, str, str]  # node, address of an edge, name


def ask_by_quic(
    lab: Lab, host: str, server_at: str, questions: Sequence[Question]
) -> tuple[list[tuple[str, str]], Seen]:
    """Let nodes ask a server of a home host by HTTP/3, all at the same time, with the name verified.

    Returns:
        For each question the client's own endpoint and the answer, which is whom the server takes its client for; and
        the sources of all datagrams that reached the server.
    """
    answers, server = asyncio.run(_ask_all(lab, host, server_at, questions))
    return answers, server.seen


def ask_and_move(lab: Lab, host: str, server_at: str, question: Question) -> tuple[tuple[str, str], Seen]:
    """The same of one client whom the server first has come back with a token (Retry, RFC 9000 section 8.1.2).

    It asks several times in its one connection, each time from another port, as behind a NAT that forgets.

    Returns:
        Its endpoint at first and the last answer, and the sources of all datagrams that reached the server.
    """
    (answer,), server = asyncio.run(_ask_all(lab, host, server_at, [question], retry=True, moves=4))
    assert server.tokens, "the server has seen its token"
    return answer, server.seen


async def _ask_all(
    lab: Lab, host: str, server_at: str, questions: Sequence[Question], *, retry: bool = False, moves: int = 0
) -> tuple[list[tuple[str, str]], _Server]:
    loop = asyncio.get_running_loop()
    door = lab[host].udp(443, server_at, timeout=0)
    _, server = await loop.create_datagram_endpoint(lambda: _Server(_of_server(lab, host), retry=retry), sock=door)
    try:
        answers = await asyncio.gather(*(_ask(lab, *question, moves) for question in questions))
    finally:
        server.close()
    return answers, server


class _Server(QuicServer):
    """Answers each request with the address and port of who sent its connection's first datagram."""

    def __init__(self, configuration: QuicConfiguration, *, retry: bool) -> None:
        super().__init__(configuration=configuration, create_protocol=_Answering, retry=retry)
        self.seen: Seen = set()
        self.tokens: set[bytes] = set()

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        self.seen.add((addr[0], addr[1]))
        assert isinstance(data, bytes)
        header = pull_quic_header(Buffer(data=data), self._configuration.connection_id_length)
        self.tokens |= {header.token} if header.token else set()
        super().datagram_received(data, addr)


class _Http(QuicConnectionProtocol):
    """One end that speaks HTTP/3, once that is agreed upon."""

    def __init__(self, quic: QuicConnection, *_: Any, **__: Any) -> None:
        super().__init__(quic)
        self.http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            assert event.alpn_protocol in H3_ALPN
            self.http = H3Connection(self._quic)
        if self.http is not None:
            for said in self.http.handle_event(event):
                self.heard(said)

    def heard(self, event: H3Event) -> None:
        raise NotImplementedError


class _Answering(_Http):
    _client = ""

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        self._client = self._client or f"{addr[0]} {addr[1]}"
        super().datagram_received(data, addr)

    def heard(self, event: H3Event) -> None:
        if self.http is not None and isinstance(event, HeadersReceived) and event.stream_ended:
            self.http.send_headers(event.stream_id, [(b":status", b"200")])
            self.http.send_data(event.stream_id, self._client.encode(), end_stream=True)
            self.transmit()


class _Asking(_Http):
    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic)
        self._body = b""
        self._whole: asyncio.Future[bytes]

    async def get(self, name: str) -> str:
        """What the server of this name answers."""
        assert self.http is not None
        self._body, self._whole = b"", asyncio.get_running_loop().create_future()
        pseudo = {":method": "GET", ":scheme": "https", ":authority": name, ":path": "/"}
        stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(
            stream, [(key.encode(), value.encode()) for key, value in pseudo.items()], end_stream=True
        )
        self.transmit()
        return (await self._whole).decode()

    def heard(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            assert (b":status", b"200") in event.headers
        if isinstance(event, DataReceived):
            self._body += event.data
            if event.stream_ended:
                self._whole.set_result(self._body)


async def _ask(lab: Lab, node: str, edge: str, name: str, moves: int) -> tuple[str, str]:
    own = lab[node].address(version=6 if ":" in edge else 4)
    sock = lab[node].udp(0, own, timeout=0)
    local = "{} {}".format(*sock.getsockname()[:2])
    connection = QuicConnection(configuration=_of_client(lab, node, name))
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(lambda: _Asking(connection), sock=sock)
    try:
        async with asyncio.timeout(PATIENCE):
            client.connect((edge, 443) if sock.family == socket.AF_INET else (edge, 443, 0, 0))
            await client.wait_connected()
            answer = await client.get(name)
            for _ in range(moves):
                transport.close()
                sock = lab[node].udp(0, own, timeout=0)
                transport, _ = await loop.create_datagram_endpoint(lambda: client, sock=sock)
                answer = await client.get(name)
            client.close()
            await client.wait_closed()
    finally:
        transport.close()
    return local, answer


def _of_server(lab: Lab, host: str) -> QuicConfiguration:
    """With the certificate of the host's web server."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    with NamedTemporaryFile() as certificate, NamedTemporaryFile() as key:
        for file, name in ((certificate, "cert.pem"), (key, "key.pem")):
            file.write(lab[host].read(f"{_SERVICE}/{name}"))
            file.flush()
        configuration.load_cert_chain(os.fspath(certificate.name), os.fspath(key.name))
    return configuration


def _of_client(lab: Lab, node: str, name: str) -> QuicConfiguration:
    """Trusts the lab's authority, which is the last of those that a node trusts."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=name)
    configuration.verify_mode = ssl.CERT_REQUIRED
    _, begin, last = lab[node].read(_TRUSTED).rpartition(b"-----BEGIN CERTIFICATE-----")
    configuration.load_verify_locations(cadata=begin + last)
    return configuration
