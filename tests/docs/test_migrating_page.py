"""docs/migrating.md: each configuration is one that its own program takes, and `explain` says what is shown."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.proxy.running import DEADLINE, edgeproxy

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "migrating.md").read_text()
BLOCKS: dict[str, list[str]] = {}
for _kind, _text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
    BLOCKS.setdefault(_kind, []).append(_text)
OURS = {match[1]: text for text in BLOCKS["toml"] if (match := re.match(r"# (\w+\.toml)\n", text))}
EXPLAINED = re.findall(r"^    \$ edgeproxy explain -c (\S+) (.*)\n    (.*)$", PAGE, re.MULTILINE)
# In a network namespace of its own anybody may listen at any port, and nobody else has it.
ALONE = ["unshare", "--map-root-user", "--net"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE)


def of(program: str) -> str:
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        pytest.skip(f"{program} is not here")
    return found


def test_each_configuration_has_its_test() -> None:
    assert {kind: len(texts) for kind, texts in BLOCKS.items()} == {"nginx": 3, "haproxy": 1, "sslh": 1, "toml": 6}
    assert len(OURS) == len(BLOCKS["toml"])
    assert {name for name, _, _ in EXPLAINED} == {"edge.toml", "haproxy.toml", "sslh.toml"}


@pytest.mark.parametrize("name", OURS)
def test_ours_is_right_and_there_is_nothing_to_note(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(OURS[name])
    done = run(edgeproxy(), "check", "-c", str(tmp_path / name))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "words", "shown"), EXPLAINED, ids=[" ".join(each[:2]) for each in EXPLAINED])
def test_a_client_is_led_as_shown(name: str, words: str, shown: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(OURS[name])
    done = run(edgeproxy(), "explain", "-c", str(tmp_path / name), *words.split())
    *_, decides, last = done.stdout.splitlines()
    assert (decides, last.strip()) == ("one rule decides:", shown)


@pytest.mark.parametrize("text", BLOCKS["nginx"])
def test_nginx_takes_its_own(text: str, tmp_path: Path) -> None:
    head = f"pid {tmp_path}/pid; error_log stderr; events {{}}\n"
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    program = of("nginx")
    if module.exists():
        head = f"load_module {module};\n{head}"
    (tmp_path / "nginx.conf").write_text(head + text)
    done = run(*ALONE, program, "-t", "-e", "stderr", "-c", str(tmp_path / "nginx.conf"))
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr, done.stderr


def test_haproxy_takes_its_own(tmp_path: Path) -> None:
    program = of("haproxy")
    (tmp_path / "haproxy.cfg").write_text(BLOCKS["haproxy"][0])
    done = run(*ALONE, program, "-c", "-f", str(tmp_path / "haproxy.cfg"))
    assert done.returncode == 0, done.stderr
    assert "[WARNING]" not in done.stderr, done.stderr


@pytest.fixture
def sslh(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """It has no check of its own: it starts, or it does not."""
    (tmp_path / "sslh.cfg").write_text("foreground: true;\n" + BLOCKS["sslh"][0])
    command = [*ALONE, of("sslh-select"), f"-F{tmp_path}/sslh.cfg"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_sslh_takes_its_own(sslh: subprocess.Popen[str]) -> None:
    def listens() -> bool:
        assert sslh.poll() is None, sslh.stderr and sslh.stderr.read()
        return " 00000000:01BB 00000000:0000 0A " in Path(f"/proc/{sslh.pid}/net/tcp").read_text()

    wait_until(listens, DEADLINE, "sslh listens at port 443")
