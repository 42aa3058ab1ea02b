"""`edgeproxy reload`: it returns when the file is in force, or says why it is not."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, accepted, connect, listening, read
from tests.proxy.running import Proxy, edgeproxy

CONFIG = """
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9001"]
"""
OTHER = CONFIG.replace("9001", "9002")
WRONG = CONFIG.replace('to = "out"', 'to = "nowhere"').replace("8443", "99999")


def asking(proxy: Proxy, *words: str) -> subprocess.Popen[str]:
    command = [edgeproxy(), "reload", "--socket", str(proxy.folder / "admin"), *words]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def reload(proxy: Proxy, *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    with asking(proxy, *words) as process:
        said, faults = process.communicate(timeout=DEADLINE)
    return process.returncode, said, faults


def answer(proxy: Proxy) -> tuple[int, dict[str, Any]]:
    status, said, faults = reload(proxy, "--json")
    assert faults == ""
    (line,) = said.splitlines()
    return status, json.loads(line)


def leads_to(proxy: Proxy, port: int) -> bool:
    """Where the next client is led."""
    with listening(proxy.here, port) as server, connect(proxy.here, 8443) as client:
        server.settimeout(DEADLINE)
        with accepted(server) as backend:
            client.sendall(b"x")
            return read(backend, 1) == b"x"


@pytest.mark.essential
def test_the_file_is_in_force_when_it_returns(start: Start) -> None:
    proxy = start(CONFIG)
    assert leads_to(proxy, 9001)
    for number in range(10):
        text, port = ((OTHER, 9002), (CONFIG, 9001))[number % 2]
        proxy.write(text)
        assert reload(proxy) == (0, "reloaded\n", "")
        assert leads_to(proxy, port), "each worker has it"
    assert proxy.metrics()["edgeproxy_reloads_total"] == 10


def test_the_faults_of_a_refused_file_are_told_and_the_old_one_goes_on(start: Start) -> None:
    proxy = start(CONFIG)
    proxy.write(WRONG)
    checked = subprocess.run(
        [edgeproxy(), "check", "-c", str(proxy.config)], capture_output=True, text=True, check=False
    )
    assert checked.stderr.count(str(proxy.config)) == 2
    status, said, faults = reload(proxy)
    assert (status, said) == (1, "")
    assert faults == checked.stderr + "edgeproxy: not reloaded, the old configuration stays\n"
    assert "edgeproxy: not reloaded, the old configuration stays" in proxy.said, "the journal has it too"
    assert proxy.metrics()["edgeproxy_reload_failures_total"] == 1
    assert leads_to(proxy, 9001)


def test_what_the_host_refuses_is_told_in_words(start: Start) -> None:
    proxy = start(CONFIG)
    proxy.write(CONFIG.replace("8443", "8449"))
    with listening(proxy.here, 8449):
        status, said, faults = reload(proxy)
    assert (status, said) == (1, "")
    assert faults.startswith("edgeproxy: not reloaded, the old configuration stays: ")
    assert "another program listens there" in faults
    assert leads_to(proxy, 9001)


def test_json_has_faults_notes_and_what_waits_for_a_start(start: Start) -> None:
    proxy = start(CONFIG)
    proxy.write("workers = 3\n" + CONFIG + '[backend.unused]\ntargets = ["HERE:9003"]\n')
    status, told = answer(proxy)
    assert (status, told["reloaded"], told["next_start"], told["faults"]) == (0, True, ["workers"], [])
    assert [note["path"] for note in told["notes"]] == ["backend.unused"]
    _, said, noted = reload(proxy)
    assert said == "reloaded, but what was changed here holds from the next start on: workers\n"
    assert noted.startswith(f"note: {proxy.config}:")
    proxy.write(WRONG)
    status, told = answer(proxy)
    assert (status, told["reloaded"], told["notes"]) == (1, False, [])
    assert [fault["path"] for fault in told["faults"]] == ["listener.in.tcp[0]", "rule[0].to"]
    assert all(set(fault) == {"file", "line", "path", "found", "allowed"} for fault in told["faults"])
    proxy.config.unlink()
    status, told = answer(proxy)
    assert (status, [fault["line"] for fault in told["faults"]]) == (1, [None])


def test_nobody_to_ask_is_a_failure(start: Start) -> None:
    proxy = start(CONFIG)
    assert reload(proxy, "--jsn")[0] == 2
    with subprocess.Popen(
        [edgeproxy(), "reload", "--socket", str(proxy.folder / "none")], stderr=subprocess.PIPE
    ) as it:
        assert b"is edgeproxy running" in it.communicate(timeout=DEADLINE)[1]
    assert it.returncode == 1


def test_the_words_of_an_older_process_are_understood(tmp_path: Path) -> None:
    """The program may be a newer one than the process that runs."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "admin"))
        server.listen()
        server.settimeout(DEADLINE)
        for answer, status in (("done", 0), ("error", 1)):
            command = [edgeproxy(), "reload", "--socket", str(tmp_path / "admin")]
            with (
                subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
                server.accept()[0] as asked,
            ):
                asked.settimeout(DEADLINE)
                assert read(asked, 16) == b'{"do":"reload"}\n'
                asked.sendall(json.dumps({answer: "reloaded"}).encode() + b"\n")
                said, _ = process.communicate(timeout=DEADLINE)
            assert (process.returncode, said) == (status, "" if status else "reloaded\n")


class Pipe:
    """In place of the file: whoever reads it waits until it is written."""

    def __init__(self, proxy: Proxy) -> None:
        proxy.config.unlink()
        os.mkfifo(proxy.config)
        self._proxy = proxy

    @contextmanager
    def reader(self) -> Iterator[int]:
        """While the proxy reads it."""
        writers: list[int] = []

        def opened() -> bool:
            try:
                writers.append(os.open(self._proxy.config, os.O_WRONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads it yet (fifo(7))
                    raise
            return bool(writers)

        wait_until(opened, DEADLINE, "the reader of the file")
        try:
            yield writers[0]
        finally:
            os.close(writers[0])


def test_a_slow_reload_is_waited_for_and_two_at_once_are_answered_in_order(start: Start) -> None:
    """The file is a pipe, so that a reload takes until somebody writes into it; clients are served meanwhile."""
    proxy = start(CONFIG)
    pipe = Pipe(proxy)
    with ExitStack() as stack:
        first = stack.enter_context(asking(proxy))
        with pipe.reader() as writer:
            second = stack.enter_context(asking(proxy))
            assert leads_to(proxy, 9001)
            assert (first.poll(), second.poll()) == (None, None)
            os.write(writer, b"nonsense")
        assert first.wait(DEADLINE) == 1
        with pipe.reader() as writer:
            assert leads_to(proxy, 9001)
            assert second.poll() is None
            os.write(writer, OTHER.replace("HERE", proxy.here).encode())
        assert second.wait(DEADLINE) == 0
        assert second.stdout
        assert second.stdout.read().startswith("reloaded, but "), "no [operation] any more"
    assert leads_to(proxy, 9002)
