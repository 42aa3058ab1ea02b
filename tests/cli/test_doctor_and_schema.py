"""`lab doctor` on this host and on one that cannot, and `lab schema`."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from lab.errors import ExitCode

# A user namespace whose root may not have network namespaces (namespaces(7), /proc/sys/user).
UNABLE = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"',
    "sh",
]


@pytest.mark.essential
@pytest.mark.single_id
def test_doctor_finds_this_host_able(lab: Any) -> None:
    text = lab("doctor", code=0).stdout
    assert text.startswith("WHAT ")
    assert text.endswith("this host can run labs\n")


def test_doctor_as_json_has_the_documented_keys(lab: Any) -> None:
    found = json.loads(lab("doctor", "--json", code=0).stdout)
    assert found.keys() == {"able", "findings"}
    assert found["able"] is True
    assert len(found["findings"]) > 10
    for finding in found["findings"]:
        assert finding.keys() == {"name", "features", "status", "found", "mend", "required"}
        assert finding["status"] in ("ok", "limited", "missing", "not needed", "not tried")


@pytest.mark.essential
def test_doctor_says_what_a_host_lacks(lab: Any) -> None:
    result = subprocess.run(
        [*UNABLE, *lab.argv("doctor")], env=lab.environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == ExitCode.HOST_NOT_ABLE, result
    assert "namespaces is missing" in result.stdout
    assert "mend it with:\n    " in result.stdout
    assert "this host cannot run a lab: " in result.stdout.splitlines()[-1]


@pytest.mark.essential
def test_up_on_a_host_that_lacks_it_says_the_same(lab: Any, name: str, tmp_path: Any) -> None:
    (tmp_path / "one.yaml").write_text("nodes: {a: {}}\n")
    argv = [*UNABLE, *lab.argv("up", "--name", name, tmp_path / "one.yaml")]
    result = subprocess.run(argv, env=lab.environment(), capture_output=True, text=True, check=False)
    assert result.returncode == ExitCode.HOST_NOT_ABLE, result
    assert result.stdout == ""
    assert "\nlab: error: " in f"\n{result.stderr}"  # on a busy machine it tells first how far it has come
    assert "lab doctor" in result.stderr


@pytest.mark.essential
def test_the_schema_is_one_and_knows_the_top_keys(lab: Any) -> None:
    import jsonschema

    schema = json.loads(lab("schema", code=0).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"nodes": {"a": {}}})
    assert not validator.is_valid({"nods": {"a": {}}})
