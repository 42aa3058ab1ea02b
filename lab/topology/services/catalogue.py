"""The services that `use:` may name; adding one is adding a file beside this one and a line here."""

from __future__ import annotations

from lab.topology.services import dnsmasq, edgeproxy, nginx, ssh_tunnel, sshd

_ALL = (sshd.KNOWN, nginx.KNOWN, dnsmasq.KNOWN, ssh_tunnel.KNOWN, edgeproxy.KNOWN)

CATALOGUE = {known.name: known for known in _ALL}
