"""The services that `use:` may name; adding one is adding a file beside this one and a line here."""

from __future__ import annotations

from lab.topology.services import dnsmasq, nginx, ssh_tunnel, sshd

CATALOGUE = {known.name: known for known in (sshd.KNOWN, nginx.KNOWN, dnsmasq.KNOWN, ssh_tunnel.KNOWN)}
