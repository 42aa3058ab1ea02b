"""The pages about edgeproxy: commands that are shown run, keys that are shown are keys, and every command is told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema.validators import validator_for

from tests.proxy.running import DEADLINE, edgeproxy

ROOT = Path(__file__).resolve().parents[2]
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "docs/edgeproxy.md", "docs/edgeproxy_operation.md")}
# Where a person reads of keys, as `key = value`.
READ = [ROOT / "docs" / f"{name}.md" for name in ("edgeproxy", "edgeproxy_operation", "conform", "migrating")]
EXAMPLES = {path.name: path.read_text() for path in (ROOT / "proxy" / "examples").glob("*.toml")}
# What these do needs no running proxy and changes nothing.
ASKING = ("check", "schema", "explain", "rules")


def said(*words: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        [edgeproxy(), *words], cwd=folder, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def commands() -> list[str]:
    return re.findall(r"^  ([a-z]+)  ", said("--help"), re.MULTILINE)


def shown() -> list[str]:
    """What the pages, the shipped files and the help have a person type, up to a pipe, a redirection or a remark."""
    texts = [*PAGES.values(), *EXAMPLES.values(), *(said(command, "--help") for command in commands())]
    typed = re.compile(rf"edgeproxy ((?:{'|'.join(ASKING)})\b[^#|>\n&`]*)")
    found = {words.strip() for text in texts for words in typed.findall(text)}
    return sorted(words for words in found if words == "schema" or re.search(r"-c \S+\.toml", words))


def test_every_command_is_told_and_no_other() -> None:
    assert len(commands()) >= 10
    text = "\n".join(PAGES.values())
    told = set(re.findall(r"(?:`|    (?:[$#] )?)edgeproxy ([a-z]+)\b", text))
    assert told == set(commands())


def test_every_option_is_told() -> None:
    text = PAGES["docs/edgeproxy.md"] + PAGES["docs/edgeproxy_operation.md"]
    options = {
        (command, option) for command in commands() for option in re.findall(r"--[a-z-]+", said(command, "--help"))
    }
    assert len(options) > 15
    assert [each for each in sorted(options) if each[1] != "--config" and each[1] not in text] == []


def test_commands_that_only_ask_do_as_they_are_shown(tmp_path: Path) -> None:
    for name, text in EXAMPLES.items():
        (tmp_path / name).write_text(text)
    shutil.copy(tmp_path / "edge.toml", tmp_path / "edgeproxy.toml")
    asking = [words for words in shown() if not re.search(r"-c (?:first|wrong)\.toml", words)]  # test_first_minute.py
    assert {words.split()[0] for words in asking} == set(ASKING)
    for words in asking:
        said(*words.replace("/etc/edgeproxy/", "").split(), folder=tmp_path)


def keys_of(schema: Any, found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Each key, wherever it stands, with what the schema says of it."""
    for key, inner in schema.get("properties", {}).items():
        found.setdefault(key, []).append(inner)
        keys_of(inner, found)
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            keys_of(inner, found)
    return found


@pytest.mark.parametrize("page", READ, ids=lambda page: page.stem)
def test_every_key_that_is_shown_with_a_value_is_one_and_takes_it(page: Path) -> None:
    keys = keys_of(json.loads(said("schema")), {})
    pairs = re.findall(r"`(?!net\.)(?:\w+\.)*(\w+) = ([^`]*)`", page.read_text())  # net: a setting of the kernel's
    assert pairs
    for key, value in pairs:
        assert key in keys, f"{key} = {value}"
        words = [{one["const"] for one in each["oneOf"]} for each in keys[key] if "oneOf" in each]
        if words and value.startswith('"'):
            assert any(value.strip('"') in some for some in words), f"{key} = {value}"


def test_a_piece_of_a_configuration_is_one_that_may_stand_in_the_shipped_one(tmp_path: Path) -> None:
    pieces = re.findall(r"^    (\[targets\]\n(?: {4}.+\n)+)", PAGES["docs/edgeproxy.md"], re.MULTILINE)
    assert len(pieces) == 1
    for piece in pieces:
        (tmp_path / "c.toml").write_text(EXAMPLES["edge.toml"] + "\n" + re.sub("^    ", "", piece, flags=re.MULTILINE))
        said("check", "-c", str(tmp_path / "c.toml"))


def test_the_schema_by_which_editors_examine_takes_what_check_takes_and_no_other_key_or_word() -> None:
    schema = json.loads(said("schema"))
    examine = validator_for(schema)(schema)
    configurations = [
        *EXAMPLES.values(),
        *re.findall(r"^```toml\n(.*?)^```$", READ[-1].read_text(), re.DOTALL | re.MULTILINE),
    ]
    assert len(configurations) >= 8
    for text in configurations:
        assert [fault.message for fault in examine.iter_errors(tomllib.loads(text))] == []
    edge = EXAMPLES["edge.toml"]
    for right, wrong in (
        ("[operation]", "[operations]"),
        ('send_proxy = "v2"', 'send_proxy = "v3"'),
        ("tcp = [", "tpc = ["),
    ):
        assert right in edge
        assert list(examine.iter_errors(tomllib.loads(edge.replace(right, wrong)))), wrong


def test_what_the_pages_have_jq_ask_of_lines_is_answered() -> None:
    if shutil.which("jq") is None:
        pytest.skip("jq is not here")
    line = {"close": "no_rule", "client": "203.0.113.7:4711", "server_name": "git.nas.example.net", "rule": "ssh"}
    text = f"edgeproxy: ready\n{json.dumps(line | {'target': '10.0.0.1:22', 'bytes_out': 1})}\n"
    asked = re.findall(r"jq (-\w+) '([^'.]+[^']*)'", "\n".join([*PAGES.values(), said("connections", "--help")]))
    assert len(asked) >= 3
    for option, program in asked:
        lines = text if "R" in option else text.partition("\n")[2]
        done = subprocess.run(["jq", option, program], input=lines, capture_output=True, text=True, check=True)
        assert "203.0.113.7" in done.stdout or "10.0.0.1:22" in done.stdout, program
