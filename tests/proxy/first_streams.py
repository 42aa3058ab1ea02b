"""Streams of first bytes that several proxies get alike: captures kept for edgeproxy, and what no client sends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VECTORS = Path(__file__).parents[2] / "proxy" / "tests" / "vectors"
END = b"--end"  # of what follows a header, so that a reader knows that all has come

NAMES = [
    f"{name}.example"
    for name in ("chromium", "curl", "firefox", "gnutls", "go", "java", "node", "openssl", "python", "rustls")
]
PROTOCOLS = ["ssh", "http1", "tls", "xmpp", "openvpn", "socks5"]  # that sslh knows too
HOSTS = ["alpha.example", "beta.example"]


@dataclass(frozen=True)
class Stream:
    """What a client says first; `is_whole`: all that a proxy must know is there."""

    name: str
    sent: bytes
    is_whole: bool = True

    def cuts(self) -> list[list[bytes]]:
        """The same in two pieces, cut where parsers look; and, if it is short, in many."""
        size = len(self.sent)
        places = sorted({at for at in (1, 3, 5, 6, 11, size // 2, size - 1) if 0 < at < size})
        cut = [[self.sent[:at], self.sent[at:]] for at in places]
        return [*cut, [self.sent[at : at + 7] for at in range(0, size, 7)]]


def hellos() -> list[Stream]:
    """Of TLS clients as they were captured; in other records; and with faults."""
    whole = [Stream(path.stem, path.read_bytes()) for path in sorted((VECTORS / "client_hello").glob("*.bin"))]
    by_name = {stream.name: stream.sent for stream in whole}
    one = by_name["openssl_s_client_name"]
    made = [Stream(f"records_of_{size}", in_records(one, size)) for size in (1, 9, 100)]
    made.append(Stream("chromium_records_of_100", in_records(by_name["chromium"], 100)))
    name = b"openssl.example"
    for what, other in {
        "capitals": b"OpenSSL.EXAMPLE",
        "zero_in_name": b"openssl\0example",
        "space_in_name": b"openssl example",
        "underline_in_name": b"openssl_example",
        "label_begins_with_dot": b".penssl.example",
        "high_bit_in_name": b"openss\xec.example",
        "address_for_a_name": b"198.51.100.0007",
    }.items():
        made.append(Stream(what, one.replace(name, other)))
    made += [
        Stream("version_2_0", b"\x16\x02\x00" + one[3:]),
        Stream("version_3_0", b"\x16\x03\x00" + one[3:]),
        Stream("version_3_4", b"\x16\x03\x04" + one[3:]),
        Stream("version_3_9", b"\x16\x03\x09" + one[3:]),
        Stream("not_a_hello", one[:5] + b"\x02" + one[6:]),
        Stream("an_alert", b"\x15\x03\x01\x00\x02\x02\x28"),
        Stream("alert_before_hello", b"\x15\x03\x01\x00\x02\x02\x28" + one),
        Stream("empty_record_first", b"\x16\x03\x01\x00\x00" + one),
        Stream("record_too_long", b"\x16\x03\x01\x48\x01" + one[5:]),
        Stream("followed_by_more", one + b"\x17\x03\x03\x00\x01\0"),
        Stream("cut_in_name", one[: one.index(name) + 4], is_whole=False),
        Stream("cut_in_record_header", one[:3], is_whole=False),
        Stream("one_byte_short", one[:-1], is_whole=False),
    ]
    return whole + made


def in_records(stream: bytes, size: int) -> bytes:
    """The same message in records of so many bytes (RFC 8446 5.1)."""
    message = stream[5:]
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(stream[:3] + len(part).to_bytes(2) + part for part in parts)


def spoken() -> list[Stream]:
    """First bytes of real clients of many protocols."""
    found = []
    for path in sorted((VECTORS / "sniff").glob("*.hex")):
        words, *digits = (line for line in path.read_text().splitlines() if not line.startswith("#"))
        if words.startswith("tcp "):
            found.append(Stream(path.stem, bytes.fromhex("".join(digits))))
    return [*found, *hellos()[:5]]


def headers() -> list[Stream]:
    """PROXY headers of both versions, right and wrong, each with something after it."""
    found = []
    for path in sorted((VECTORS / "proxy_header").glob("*.hex")):
        lines = path.read_text().splitlines()
        said = [line.split()[2] for line in lines if line.startswith("# stream: ")]
        if said:
            is_whole = said != ["more"]
            sent = bytes.fromhex("".join(line for line in lines if not line.startswith("#")))
            found.append(Stream(path.stem, sent + END if is_whole else sent, is_whole))
    return found


def requests() -> list[Stream]:
    """HTTP/1, usual and not."""

    def get(*lines: str, target: str = "/", version: str = "HTTP/1.1", end: str = "\r\n") -> bytes:
        return end.join([f"GET {target} {version}", *lines, "", ""]).encode("latin-1")

    alpha, beta = HOSTS
    return [
        Stream("one_host", get(f"Host: {alpha}")),
        Stream("other_host", get("Accept: */*", f"Host: {beta}")),
        Stream("unknown_host", get("Host: gamma.example")),
        Stream("capitals", get("HOST: Alpha.EXAMPLE")),
        Stream("with_port", get(f"Host: {alpha}:8080")),
        Stream("with_port_that_is_none", get(f"Host: {alpha}:http")),
        Stream("with_two_ports", get(f"Host: {alpha}:80:80")),
        Stream("spaces_around", get(f"Host: \t {alpha} \t ")),
        Stream("no_space", get(f"Host:{alpha}")),
        Stream("dot_at_end", get(f"Host: {alpha}.")),
        Stream("empty_host", get("Host:")),
        Stream("no_host", get("Accept: */*")),
        Stream("no_host_1_0", get("Accept: */*", version="HTTP/1.0")),
        Stream("host_1_0", get(f"Host: {alpha}", version="HTTP/1.0")),
        Stream("version_1_2", get(f"Host: {alpha}", version="HTTP/1.2")),
        Stream("version_2_0", get(f"Host: {alpha}", version="HTTP/2.0")),
        Stream("host_twice", get(f"Host: {alpha}", f"Host: {beta}")),
        Stream("same_host_twice", get(f"Host: {alpha}", f"Host: {alpha}")),
        Stream("space_before_colon", get(f"Host : {alpha}")),
        Stream("folded", get("Host:", f" {alpha}")),
        Stream("folded_first", get(f" Host: {alpha}")),
        Stream("whole_target", get(f"Host: {alpha}", target=f"http://{alpha}/a")),
        Stream("whole_target_of_another", get(f"Host: {alpha}", target=f"http://{beta}/a")),
        Stream("whole_target_with_port", get(f"Host: {beta}:8", target=f"http://{beta}:8/a")),
        Stream("whole_target_without_host", get(target=f"http://{alpha}/")),
        Stream("whole_target_with_user", get(f"Host: {alpha}", target=f"http://{beta}@{alpha}/")),
        Stream("user_in_host", get(f"Host: {beta}@{alpha}")),
        Stream("slash_in_host", get(f"Host: {alpha}/{beta}")),
        Stream("comma_in_host", get(f"Host: {alpha}, {beta}")),
        Stream("zero_in_host", get(f"Host: {alpha}\0")),
        Stream("zero_in_other_field", get("X: a\0b", f"Host: {alpha}")),
        Stream("carriage_return_in_field", get("X: a\rb", f"Host: {alpha}")),
        Stream("line_feeds_only", get(f"Host: {alpha}", end="\n")),
        Stream("empty_lines_first", b"\r\n\r\n" + get(f"Host: {alpha}")),
        Stream("many_fields", get(*(f"X-{number}: y" for number in range(80)), f"Host: {alpha}")),
        Stream("other_method", b"PROPFIND / HTTP/1.1\r\nHost: alpha.example\r\n\r\n"),
        Stream("small_letters", b"get / HTTP/1.1\r\nHost: alpha.example\r\n\r\n"),
        Stream("method_of_a_dot", b"G.T / HTTP/1.1\r\nHost: alpha.example\r\n\r\n"),
        Stream("two_spaces", b"GET  / HTTP/1.1\r\nHost: alpha.example\r\n\r\n"),
        Stream("space_in_target", b"GET /a b HTTP/1.1\r\nHost: alpha.example\r\n\r\n"),
        Stream("tab_in_first_line", b"GET\t/\tHTTP/1.1\r\nHost: alpha.example\r\n\r\n"),
        Stream("no_version", b"GET /\r\nHost: alpha.example\r\n\r\n"),
        Stream("star", b"OPTIONS * HTTP/1.1\r\nHost: alpha.example\r\n\r\n"),
        Stream("no_field_name", b"GET / HTTP/1.1\r\n: x\r\nHost: alpha.example\r\n\r\n"),
        Stream("no_colon", b"GET / HTTP/1.1\r\nX\r\nHost: alpha.example\r\n\r\n"),
        Stream("host_after_the_end", b"GET / HTTP/1.1\r\nX: y\r\n\r\nHost: alpha.example\r\n\r\n"),
        Stream(
            "body_that_looks_like_a_field", b"POST / HTTP/1.1\r\nContent-Length: 22\r\n\r\nHost: alpha.example\r\n\r\n"
        ),
        Stream("cut_in_host", b"GET / HTTP/1.1\r\nHost: alpha.exam", is_whole=False),
        Stream("cut_after_host", b"GET / HTTP/1.1\r\nHost: alpha.example\r\n", is_whole=False),
    ]
