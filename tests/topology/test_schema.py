"""The JSON Schema is one, and says what the loader says about every golden file's shape."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from lab.topology.schema import json_schema
from lab.topology.services.catalogue import CATALOGUE
from lab.topology.source import parse

HERE = Path(__file__).parent
VALID = sorted((HERE / "valid").glob("*.yaml"))
REQUIRED = {  # what makes a service of each kind valid
    "sshd": "",
    "nginx": ", config: web.conf",
    "dnsmasq": "",
    "ssh_tunnel": ', to: b, forwards: ["80:localhost:80"]',
    "edgeproxy": ", config: edge.toml",
}
MISSHAPEN = [
    "shape.yaml",
    "shape_of_meshes.yaml",
    "shape_of_nat_and_firewall.yaml",
    "services.yaml",
    "list_at_the_top.yaml",
]


def data_of(file: Path) -> object:
    source = parse(file, file.read_text(), [])
    return source.data if source is not None else []


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_there_are_files_and_services() -> None:
    assert VALID
    assert MISSHAPEN
    assert CATALOGUE
    assert set(REQUIRED) == set(CATALOGUE)


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_the_schema_accepts_what_the_loader_accepts(file: Path) -> None:
    Draft202012Validator(json_schema()).validate(data_of(file))


@pytest.mark.parametrize("name", MISSHAPEN)
def test_the_schema_refuses_wrong_shapes(name: str) -> None:
    with pytest.raises(ValidationError):
        Draft202012Validator(json_schema()).validate(data_of(HERE / "invalid" / name))


@pytest.mark.parametrize("use", CATALOGUE)
def test_the_schema_knows_every_service(use: str) -> None:
    validator = Draft202012Validator(json_schema())
    for more, is_valid in (("", True), (", no_such_key: 1", False)):
        text = f"nodes: {{a: {{services: {{s: {{use: {use}{REQUIRED[use]}{more}}}}}}}}}"
        source = parse(Path("t.yaml"), text, [])
        assert source is not None
        assert validator.is_valid(source.data) == is_valid, text
    names = {
        definition["properties"]["use"]["const"]
        for definition in json_schema()["$defs"].values()
        if "use" in definition.get("properties", {})
    }
    assert use in names


def test_a_misspelt_key_is_refused_at_every_level() -> None:
    validator = Draft202012Validator(json_schema())
    for text in (
        "nods: {}",
        "networks: {a: {prefixes: [10.0.0.0/8], x: 1}}",
        "nodes: {a: {x: 1}}",
        "nodes: {a: {links: {b: {x: 1}}}}",
        "nodes: {a: {services: {s: {run: x, x: 1}}}}",
        "mesh: {a: {driver: nebula, prefix: 10.0.0.0/8, lighthouses: [a], x: 1}}",
        "nodes: {a: {services: {s: {run: x, files: {f: {x: 1}}}}}}",
    ):
        source = parse(Path("t.yaml"), text, [])
        assert source is not None
        assert not validator.is_valid(source.data), text
