"""Certificates of the lab's own authority: trusted by programs of every node for the right name, by nobody else."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   phone -- lan -- nas
networks: {lan: {prefixes: [192.0.2.0/24, "2001:db8::/64"]}}
nodes:
  nas:
    links: {lan: [192.0.2.10, "2001:db8::10"]}
    services:
      web:
        run: openssl s_server -quiet -accept "*:443" -cert cert.pem -key key.pem -www
        tls: [nas.example, "*.apps.example", 192.0.2.10, "2001:db8::10"]
        ready: {tcp: 443}
      other:
        run: openssl s_server -quiet -accept "*:444" -cert cert.pem -key key.pem -www
        tls: ["{{ node.name }}.other.example"]
        ready: {tcp: 444}
  phone:
    links: {lan: auto}
    hosts: {nas.example: nas, wrong.example: nas, photos.apps.example: nas, nas.other.example: nas}
"""
TRUST_STORE = Path("/etc/ssl/certs/ca-certificates.crt")
NOT_TRUSTED = 60  # curl(1), EXIT CODES: the peer's certificate could not be authenticated


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


def curl(lab: Lab, url: str) -> int:
    return lab["phone"].run(["curl", "-sS", "-o", "/dev/null", "--max-time", "30", url]).returncode


def verified(lab: Lab, name: str, port: int = 443) -> bool:
    command = ["openssl", "s_client", "-connect", f"192.0.2.10:{port}", "-servername", name, "-verify_hostname", name]
    done = lab["phone"].run([*command, "-verify_return_error", "-brief"], input="")
    assert ("Verification: OK" in done.stderr) == (done.returncode == 0), done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("name", ["nas.example", "photos.apps.example", "192.0.2.10", "[2001:db8::10]"])
def test_curl_of_another_node_trusts_the_certificate_for_its_names(lab: Lab, name: str) -> None:
    assert curl(lab, f"https://{name}/") == 0


@pytest.mark.parametrize("name", ["wrong.example", "nas.example:444"])
def test_curl_refuses_it_for_another_name(lab: Lab, name: str) -> None:
    assert curl(lab, f"https://{name}/") == NOT_TRUSTED


def test_openssl_of_another_node_agrees(lab: Lab) -> None:
    assert verified(lab, "nas.example")
    assert not verified(lab, "wrong.example")
    assert verified(lab, "nas.other.example", 444)
    assert not verified(lab, "nas.example", 444)


def test_the_host_does_not_trust_the_labs_authority(lab: Lab) -> None:
    context = ssl.create_default_context()
    with lab["phone"].connect(("192.0.2.10", 443)) as raw, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(raw, server_hostname="nas.example")
    authority = lab["nas"].read(str(TRUST_STORE))
    assert len(authority) > len(TRUST_STORE.read_bytes())


def test_the_authority_is_a_new_one_for_every_lab(lab: Lab, up: Callable[..., Lab]) -> None:
    stores = [each["nas"].read(str(TRUST_STORE)) for each in (lab, up(TOPOLOGY))]
    assert stores[0] != stores[1]


def test_the_private_key_is_its_owners_alone(lab: Lab) -> None:
    modes = lab["nas"].run(["stat", "-c", "%a %n", "key.pem", "cert.pem"], cwd="/run/lab/services/web").stdout
    assert modes == "600 key.pem\n644 cert.pem\n"


def test_the_authoritys_private_key_is_nowhere(lab: Lab) -> None:
    found = lab["nas"].run(["grep", "-rl", "PRIVATE KEY", "/run/lab", "/var/tmp", "/var/log"]).stdout.split()
    assert sorted(found) == ["/run/lab/services/other/key.pem", "/run/lab/services/web/key.pem"]
