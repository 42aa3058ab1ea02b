"""Fresh keys for the meshes of a lab: certificates of nebula from an authority of the lab's own, keys of WireGuard.

They are made for this lab alone and never leave its memory file system; the authority's key is gone once it has signed.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lab.errors import RealiseError
from lab.host import programs
from lab.plan.step import CreateMeshKeys
from lab.realise.filesystem import Filesystem
from lab.realise.keys import SERVICES_FOLDER

_LIFETIME = "720h"


def create_mesh_keys(step: CreateMeshKeys, filesystem: Filesystem) -> None:
    """Write the members' keys into the folders of their services."""
    folders: dict[str, Path] = {}
    for member in step.members:
        folders[member.node] = filesystem.node_folder(member.node, SERVICES_FOLDER) / step.mesh
        folders[member.node].mkdir(exist_ok=True)
    if step.driver == "nebula":
        _sign(step, folders)
        _allow_questions(step.port, folders)
    else:
        _exchange(folders)


def _sign(step: CreateMeshKeys, folders: dict[str, Path]) -> None:
    """ca.crt, host.crt and host.key for each member; all are signed at once."""
    program = programs.find("nebula-cert") or "nebula-cert"
    with tempfile.TemporaryDirectory(dir="/run") as kept:
        authority = ("-out-crt", f"{kept}/ca.crt", "-out-key", f"{kept}/ca.key")
        _await([_start(program, "ca", "-name", step.mesh, "-duration", _LIFETIME, *authority)])
        signing = []
        for member in step.members:
            folder = folders[member.node]
            (folder / "ca.crt").write_text(Path(kept, "ca.crt").read_text())
            signed_by = ("-ca-crt", f"{kept}/ca.crt", "-ca-key", f"{kept}/ca.key")
            out = ("-out-crt", str(folder / "host.crt"), "-out-key", str(folder / "host.key"))
            signing.append(_start(program, "sign", "-name", member.node, "-ip", member.address, *signed_by, *out))
        _await(signing)


def _start(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def _await(running: list[subprocess.Popen[str]]) -> None:
    for process in running:
        said, _ = process.communicate()
        if process.returncode:
            raise RealiseError(f"nebula-cert ended with status {process.returncode}: {said.strip()}")


def _allow_questions(port: int, folders: dict[str, Path]) -> None:
    """Let root of each member ask its nebula over ssh, on loopback, with one key for the whole mesh."""
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    for folder in folders.values():
        _write(folder / "status_key", _openssh(key))
        _write(folder / "status_host_key", _openssh(ed25519.Ed25519PrivateKey.generate()))
        config = folder / "config"
        config.mkdir(exist_ok=True)
        users = [{"user": "lab", "keys": [public]}]
        sshd = {
            "enabled": True,
            "listen": f"127.0.0.1:{port}",
            "host_key": "status_host_key",
            "authorized_users": users,
        }
        (config / "status.yml").write_text(json.dumps({"sshd": sshd}, indent=2) + "\n")


def _exchange(folders: dict[str, Path]) -> None:
    """private.key for each member, and NODE.pub of all the others."""
    keys = {node: x25519.X25519PrivateKey.generate() for node in folders}
    for node, folder in folders.items():
        private = keys[node].private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        _write(folder / "private.key", base64.b64encode(private).decode() + "\n")
        for other, key in keys.items():
            public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
            (folder / f"{other}.pub").write_text(base64.b64encode(public).decode() + "\n")


def _openssh(key: ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
