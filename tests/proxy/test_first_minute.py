"""The first minute of docs/edgeproxy.md: its commands say what is shown, word for word; its proxy leads to a shell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.proxy.conftest import Start
from tests.proxy.ends import accepted, connect, listening, read, refused
from tests.proxy.running import DEADLINE, edgeproxy

PAGE = Path(__file__).parents[2] / "docs/edgeproxy.md"


def steps() -> list[tuple[str, str]]:
    """Each command of the section, and what is shown below it."""
    section = PAGE.read_text().partition("\n## A first minute\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", section, re.MULTILINE)
    lines = [line.removeprefix("    ") for block in blocks for line in block.splitlines()]
    shown = "\n".join(lines).split("$ ")[1:]
    return [(command.strip(), text.strip("\n")) for command, _, text in (step.partition("\n") for step in shown)]


def files() -> dict[str, str]:
    return {command.removeprefix("cat "): text + "\n" for command, text in steps() if command.startswith("cat ")}


def test_the_commands_say_what_is_shown(tmp_path: Path) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    commands = {command: text for command, text in steps() if command.startswith("edgeproxy ")}
    assert list(commands) == ["edgeproxy check -c first.toml", "edgeproxy check -c wrong.toml"]
    for command, text in commands.items():
        words = [edgeproxy(), *command.split()[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert (done.stdout + done.stderr).strip() == text, command
        assert done.returncode == (2 if "wrong" in command else 0)


@pytest.mark.essential
def test_the_first_file_leads_ssh_to_the_shell_and_refuses_others(start: Start) -> None:
    text = files()["first.toml"]
    assert text.count("127.0.0.1:8443") == text.count("127.0.0.1:22") == 1
    proxy = start(text.replace("127.0.0.1:8443", "HERE:8443").replace("127.0.0.1:22", "HERE:9022"))
    with listening(proxy.here, 9022) as server:
        with connect(proxy.here, 8443) as client:
            client.sendall(b"SSH-2.0-first\r\n")
            with accepted(server) as shell:
                assert read(shell, 15) == b"SSH-2.0-first\r\n"
                shell.sendall(b"SSH-2.0-shell\r\n")
                assert read(client, 15) == b"SSH-2.0-shell\r\n"
        refused(proxy.here, 8443, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
