"""A QUIC stream that goes on and on through a proxy, by aioquic in a thread of its own: all that is said comes back."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent, StreamDataReceived

from tests.proxy.running import DEADLINE
from tests.proxy.udp_bench import Address

NAME, ALPN = "nas.example.net", "echo"
CHUNK = 20_000  # bytes; as many are under way at once


class Stream:
    """What both ends have said and heard so far; read by the test while it goes on."""

    def __init__(self) -> None:
        self.sent, self.echoed, self.at_server = (hashlib.sha256() for _ in range(3))
        self.chunks = 0
        self.sources: set[Address] = set()
        self.is_over = threading.Event()


class _Server(QuicServer):
    def __init__(self, configuration: QuicConfiguration, stream: Stream) -> None:
        super().__init__(configuration=configuration, create_protocol=lambda *a, **b: _Echo(stream, *a, **b))
        self._stream = stream

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        self._stream.sources.add(addr[:2])
        super().datagram_received(data, addr)


class _Echo(QuicConnectionProtocol):
    def __init__(self, stream: Stream, quic: QuicConnection, *_: Any, **__: Any) -> None:
        super().__init__(quic)
        self._stream = stream

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self._stream.at_server.update(event.data)
            self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)


class _Client(QuicConnectionProtocol):
    def __init__(self, stream: Stream, quic: QuicConnection) -> None:
        super().__init__(quic)
        self._stream, self._missing = stream, 0
        self._id = -1
        self.ended = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        self._id = self._quic.get_next_available_stream_id()
        self._say()

    def _say(self) -> None:
        is_last = self._stream.is_over.is_set()
        data = os.urandom(CHUNK)
        self._stream.sent.update(data)
        self._missing = CHUNK
        self._quic.send_stream_data(self._id, data, end_stream=is_last)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        if not isinstance(event, StreamDataReceived):
            return
        self._stream.echoed.update(event.data)
        self._missing -= len(event.data)
        if event.end_stream:
            self.ended.set_result(None)
        elif self._missing == 0:
            self._stream.chunks += 1
            self._say()


@contextmanager
def streaming(folder: Path, server_at: Address, through: Address) -> Iterator[Stream]:
    """A stream by way of a proxy; at the end it is told to be over, and both ends have heard the same."""
    stream, failed = Stream(), list[BaseException]()

    def run() -> None:
        try:
            asyncio.run(_run(folder, stream, server_at, through))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails by it
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield stream
    finally:
        stream.is_over.set()
        thread.join(DEADLINE)
    assert not failed, failed
    assert not thread.is_alive(), "the stream stands still"
    assert stream.sent.digest() == stream.at_server.digest() == stream.echoed.digest()


async def _run(folder: Path, stream: Stream, server_at: Address, through: Address) -> None:
    loop = asyncio.get_running_loop()
    configuration = _of_server(folder)
    _, server = await loop.create_datagram_endpoint(lambda: _Server(configuration, stream), server_at)
    connection = QuicConnection(configuration=_of_client())
    transport, client = await loop.create_datagram_endpoint(
        lambda: _Client(stream, connection), local_addr=(through[0], 0)
    )
    try:
        client.connect(through)
        async with asyncio.timeout(DEADLINE):
            await client.wait_connected()
        client.begin()
        await client.ended
    finally:
        client.close()
        transport.close()
        server.close()


def _of_server(folder: Path) -> QuicConfiguration:
    key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    files = ["-subj", f"/CN={NAME}", "-keyout", f"{folder}/quic.key", "-out", f"{folder}/quic.crt"]
    subprocess.run([*key, *files], check=True, capture_output=True, timeout=DEADLINE)
    configuration = QuicConfiguration(is_client=False, alpn_protocols=[ALPN])
    configuration.load_cert_chain(f"{folder}/quic.crt", f"{folder}/quic.key")
    return configuration


def _of_client() -> QuicConfiguration:
    configuration = QuicConfiguration(is_client=True, alpn_protocols=[ALPN], server_name=NAME)
    configuration.verify_mode = ssl.CERT_NONE
    return configuration
