"""A PostgreSQL server in a node: a cluster of its own in the node's /tmp, which lets in one address and no other."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

from lab import Node, wait_until

PATIENCE = 60.0  # seconds
DATABASE = "user=me dbname=postgres"  # with the first user and the first database of every cluster
_USER = "nobody"  # PostgreSQL refuses to run as root
_QUICK = ["-c", "fsync=off", "-c", "unix_socket_directories="]


@contextmanager
def postgres(node: Node, at: str, port: int, let_in: str) -> Iterator[None]:
    """Serve at an address of the node, without a password for the clients from `let_in`."""
    data = node.run(["mktemp", "-d"], check=True, user=_USER).stdout.strip()
    made = ["--pgdata", data, "--username=me", "--auth=reject", "--no-locale", "--no-sync"]
    node.run([_program("initdb"), *made], check=True, timeout=PATIENCE, user=_USER)
    rule = f"host all all {ip_network(let_in)} trust\n"
    node.run(["tee", f"{data}/pg_hba.conf"], input=rule, check=True, user=_USER)
    served = [_program("postgres"), "-D", data, "-p", f"{port}", "-c", f"listen_addresses={at}", *_QUICK]
    with node.start(served, user=_USER) as server:
        asked = ["pg_isready", "--quiet", "--host", at, "--port", f"{port}"]
        wait_until(lambda: node.run(asked).returncode == 0, PATIENCE, "PostgreSQL takes connections")
        yield
        server.send_signal(signal.SIGINT)  # its "fast shutdown", which waits for no client
        assert server.wait(PATIENCE) == 0


def _program(name: str) -> str:
    """Debian keeps the programs of a server out of PATH, in a folder for each version."""
    of_versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(of_versions[-1]) if of_versions else shutil.which(name)
    assert found, f"PostgreSQL's {name} is not installed: make setup"
    return found
