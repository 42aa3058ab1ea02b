"""Hundreds of clients that connect at once, over and over, and a backend that echoes to all of them: one thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

from lab.realise.asking import wait_until
from tests.proxy.running import DEADLINE

WIDTH = 200  # clients at once: of two sockets' queues of 128 (somaxconn of old kernels), and of 1024 descriptors here


class Flood:
    """Bursts of clients, one after another until told to stop; what went wrong for any of them."""

    def __init__(self, address: str, port: int, backend_port: int) -> None:
        self.served = 0
        self.faults: list[str] = []
        self._address, self._port, self._backend_port = address, port, backend_port
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        server = await asyncio.start_server(_echo, self._address, self._backend_port, backlog=1024)
        async with server:
            while not self._stopping:
                await asyncio.gather(*(self._visit(b"%d\n" % number) for number in range(WIDTH)))

    async def _visit(self, word: bytes) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                reader, writer = await asyncio.open_connection(self._address, self._port)
                try:
                    writer.write(word)
                    writer.write_eof()
                    said = await reader.read()
                finally:
                    writer.close()
                    await writer.wait_closed()
            if said != word:
                self.faults.append(f"heard {said!r}, not {word!r}")
        except (OSError, TimeoutError) as fault:
            self.faults.append(repr(fault))
        self.served += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    def wait(self, bursts: int) -> None:
        """Until so many more bursts have been served."""
        goal = self.served + bursts * WIDTH
        wait_until(lambda: self.served >= goal or bool(self.faults), DEADLINE, "clients are served")


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(await reader.read())
        await writer.drain()
    except OSError:
        pass  # whoever asks tells of it
    finally:
        writer.close()
