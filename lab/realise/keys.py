"""Fresh keys for a lab: ssh host and login keys, a certificate authority and its certificates.

They are made for this lab alone and never leave its memory file system.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.plan.step import CreateCertificates, CreateSshKeys
from lab.realise.filesystem import Filesystem

_LIFETIME = timedelta(days=30)
_CLOCK_TOLERANCE = timedelta(hours=1)

# Where a node keeps them; `sshd_config` and certificates of services name these paths.
SSH_FOLDER = "/run/lab/ssh"
LOGIN_FOLDER = "/run/lab/home/.ssh"
SERVICES_FOLDER = "/run/lab/services"


def create_ssh_keys(step: CreateSshKeys, filesystem: Filesystem) -> None:
    """Write host keys, login keys, authorized_keys, known_hosts and a client configuration into the nodes."""
    clients = sorted({client for server in step.servers for client in server.clients})
    login = {client: ed25519.Ed25519PrivateKey.generate() for client in clients}
    known = []
    for server in step.servers:
        host_key = ed25519.Ed25519PrivateKey.generate()
        known.append(f"{','.join(server.names)} {_public_line(host_key)}\n")
        folder = filesystem.node_folder(server.node, SSH_FOLDER)
        _write(folder / "host_ed25519", _private(host_key), 0o600)
        allowed = "".join(f"{_public_line(login[client])} root@{client}\n" for client in server.clients)
        _write(folder / "authorized_keys", allowed, 0o600)
    for client in clients:
        folder = filesystem.node_folder(client, LOGIN_FOLDER)
        _write(folder / "id_ed25519", _private(login[client]), 0o600)
        _write(folder / "id_ed25519.pub", f"{_public_line(login[client])} root@{client}\n", 0o644)
        _write(folder / "known_hosts", "".join(known), 0o644)
        _write(
            folder / "config", "Host *\n    User root\n    StrictHostKeyChecking accept-new\n    BatchMode yes\n", 0o644
        )


def create_certificates(step: CreateCertificates, filesystem: Filesystem) -> None:
    """Write cert.pem and key.pem into each service's folder, and make every node trust their authority."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _name("Homelab Lab certificate authority")
    root = (
        _certificate(authority, authority, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    for wanted in step.certificates:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        leaf = (
            _certificate(_name(wanted.names[0]), authority, key.public_key())
            .add_extension(x509.SubjectAlternativeName([_subject(name) for name in wanted.names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        folder = filesystem.node_folder(wanted.node, SERVICES_FOLDER) / wanted.service
        folder.mkdir(exist_ok=True)
        _write(folder / "cert.pem", _pem(leaf), 0o644)
        _write(folder / "key.pem", _private(key), 0o600)
    filesystem.trust(_pem(root))


def _certificate(subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes) -> x509.CertificateBuilder:
    now = datetime.now(tz=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_TOLERANCE)
        .not_valid_after(now + _LIFETIME)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _subject(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _public_line(key: ed25519.Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _private(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    form = PrivateFormat.OpenSSH if isinstance(key, ed25519.Ed25519PrivateKey) else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
