"""Where the load goes: one port of the proxy for each thing that the backend does at a port of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Door:
    """A port of the proxy, and the backend's port to which it leads."""

    name: str
    port: int
    backend_port: int
    is_udp: bool = False


SINK = Door("sink", 8000, 7000)
SUNK_PORT = 7009  # where the backend tells how much it has read
SOURCE = Door("source", 8001, 7001)
ANSWER = Door("answer", 8002, 7002)
ECHO = Door("echo", 8003, 7003)
PLAIN = (SINK, SOURCE, ANSWER, ECHO)
# Led by the server name of a TLS hello.
PREREAD = Door("preread", 8004, 7002)
SERVER_NAME = "curl.example"
# The client comes with a PROXY header, and the backend, in the proxy's own node, sees the address of the header.
INTRODUCED = Door("introduced", 8005, 7002)
COUNTED = Door("counted", 8010, 7010, is_udp=True)
UDP_ECHO = Door("udp_echo", 8011, 7011, is_udp=True)
SEEN_PORT = 7013  # where the backend tells from how many endpoints it was asked for an echo
UDP_ECHO_JOINED = Door("udp_echo_joined", 8012, 7012, is_udp=True)
UDP = (COUNTED, UDP_ECHO, UDP_ECHO_JOINED)

PROXY_NEAR = "192.0.2.1"  # the proxy's address towards the client
BACKEND = "198.51.100.2"
EVERY = (*PLAIN, PREREAD, *UDP)
