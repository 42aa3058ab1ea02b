"""Where nginx, HAProxy and sslh do other things than edgeproxy with the same first bytes, and why that is meant.

Whatever is not listed here is the same, or a defect of edgeproxy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.proxy.other_proxies import NONE, REFUSED, Door

# Of Debian 12; others decide some of these otherwise.
VERSIONS = {"nginx": "1.22", "haproxy": "2.6", "sslh": "1.20"}


@dataclass(frozen=True)
class Difference:
    """What a peer does with some streams; patterns as those of file names."""

    peer: str
    door: Door
    streams: tuple[str, ...]
    found: str
    why: str

    def covers(self, peer: str, door: Door, stream: str, found: str) -> bool:
        is_one = any(fnmatchcase(stream, pattern) for pattern in self.streams)
        return self.peer == peer and self.door is door and is_one and fnmatchcase(found, self.found)


def _told_and_led(found: str, why: str, *streams: str) -> list[Difference]:
    """nginx does the same at both of its doors for headers."""
    return [Difference("nginx", door, streams, found, why) for door in (Door.HEADER, Door.TOLD)]


_NAMES = [
    ("haproxy", NONE, "it reads a hello of one record only", "records_of_*", "*_records_of_100", "*_split_in_name"),
    ("sslh", NONE, "it reads a hello of one record only", "records_of_*", "*_records_of_100", "*_split_in_name"),
    ("sslh", NONE, "it compares names with their case", "capitals", "openssl_s_client_alpn"),
    ("nginx", NONE, "a dot at the end makes another name for it; RFC 6066 wants none there", "openssl_s_client_dot"),
    ("haproxy", NONE, "a dot at the end makes another name for it", "openssl_s_client_dot"),
    ("sslh", NONE, "a dot at the end makes another name for it", "openssl_s_client_dot"),
    ("nginx", "openssl.example", "no client sends this version; edgeproxy takes less for TLS", "version_3_9"),
    ("haproxy", "openssl.example", "no client sends this version; edgeproxy takes less for TLS", "version_3_9"),
    ("sslh", "openssl.example", "no client sends this version; edgeproxy takes less for TLS", "version_3_9"),
    ("nginx", "openssl.example", "RFC 8446 5.1 forbids empty records of a handshake", "empty_record_first"),
    (
        "haproxy",
        "openssl.example",
        "RFC 8446 5.1: a record has 2^14 bytes at most; HAProxy looks no further",
        "record_too_long",
    ),
    ("nginx", REFUSED, "it waits for the rest of the record, and ends who does not send it", "record_too_long"),
    (
        "nginx",
        REFUSED,
        "it ends who has not said a whole hello in time; a rule of edgeproxy takes who is unknown",
        "cut_*",
    ),
    ("nginx", REFUSED, "as above", "one_byte_short"),
    ("haproxy", "openssl.example", "the name is there; edgeproxy reads a message when it is whole", "one_byte_short"),
]
_SPOKEN = [
    ("sslh", "openvpn", "it looks at a length only, and DNS over TCP begins with one, too", "dns_dig_*"),
    ("sslh", "http1", "for it the preface of HTTP/2 is HTTP", "http2_curl"),
    ("haproxy", "http1", "for it the preface of HTTP/2 is HTTP", "http2_curl"),
    ("nginx", REFUSED, "it waits for five bytes, and ends who does not send them", "socks5_curl"),
]
_HOSTS = [
    (
        "nginx",
        "alpha.example",
        "a port that is none; RFC 9110 7.2: the value is not valid",
        "with_port_that_is_none",
        "with_two_ports",
    ),
    ("haproxy", "alpha.example", "told to take what stands before a colon", "with_port_that_is_none", "with_two_ports"),
    ("nginx", REFUSED, "a tab before a value is allowed (RFC 9110 5.5), but nginx refuses it", "spaces_around"),
    ("haproxy", NONE, "a dot at the end makes another name for it", "dot_at_end"),
    (
        "nginx",
        REFUSED,
        "it answers 400, as a server should; edgeproxy leads who names nobody by the rule for them",
        "empty_host",
    ),
    ("nginx", REFUSED, "as above", "no_host", "host_after_the_end", "body_that_looks_like_a_field"),
    ("nginx", REFUSED, "as above: what readers may read differently names nobody", "host_twice", "same_host_twice"),
    ("nginx", REFUSED, "as above", "space_before_colon", "folded", "folded_first", "slash_in_host", "comma_in_host"),
    ("nginx", REFUSED, "as above", "zero_in_host", "zero_in_other_field", "carriage_return_in_field", "no_field_name"),
    ("nginx", REFUSED, "as above: not a request of HTTP/1", "version_2_0", "small_letters", "method_of_a_dot"),
    ("nginx", REFUSED, "as above", "space_in_target", "tab_in_first_line", "no_version"),
    (
        "nginx",
        REFUSED,
        "it wants Host beside a whole target; RFC 9112 3.2.2: the target says who is meant",
        "whole_target_without_host",
    ),
    ("nginx", REFUSED, "it knows no user in a target; nor does edgeproxy, and names nobody", "whole_target_with_user"),
    ("nginx", REFUSED, "as a server of files it has no use for `OPTIONS *`", "star"),
    ("nginx", REFUSED, "it ends who has not said a whole request in time", "cut_*"),
    (
        "nginx",
        "alpha.example",
        "it is lenient; edgeproxy takes for HTTP/1 what RFC 9112 3 says",
        "two_spaces",
        "empty_lines_first",
    ),
    (
        "nginx",
        "alpha.example",
        "it skips a line that is no field; readers may differ, so edgeproxy reads no name",
        "no_colon",
    ),
    (
        "haproxy",
        "alpha.example",
        "it is lenient; edgeproxy takes for HTTP/1 what RFC 9112 3 says",
        "two_spaces",
        "empty_lines_first",
    ),
    ("haproxy", "alpha.example", "as above", "version_2_0", "small_letters", "method_of_a_dot", "tab_in_first_line"),
    (
        "haproxy",
        "alpha.example",
        "it takes one of several, or joins folded lines: readers may differ",
        "same_host_twice",
        "folded",
        "comma_in_host",
    ),
    (
        "haproxy",
        "alpha.example",
        "it takes what stands before the zero; RFC 9110 5.5: invalid and dangerous",
        "zero_in_host",
    ),
    ("haproxy", "alpha.example", "as above", "zero_in_other_field"),
    ("haproxy", NONE, "asked for the field; RFC 9112 3.2.2: a whole target outweighs it", "whole_target_of_another"),
    ("haproxy", NONE, "as above", "whole_target_without_host"),
    (
        "haproxy",
        "alpha.example",
        "asked for the field; the target has a user, which RFC 9110 4.2.4 calls an error",
        "whole_target_with_user",
    ),
]
_OFTEN = "192.0.2.1 56324 198.51.100.1 443"
_HEADERS_OF_HAPROXY = [
    (
        "haproxy",
        _OFTEN,
        "it does not look into fields that it does not use",
        "bad_authority_not_utf8",
        "bad_netns_not_ascii",
        "bad_ssl_*",
    ),
    (
        "haproxy",
        _OFTEN,
        "it reads numbers leniently; the specification forbids leading zeros",
        "bad_v1_leading_zero_in_port",
        "bad_v1_octal",
    ),
    ("haproxy", "192.0.3.0 *", "it adds 256 to the part before", "bad_v1_part_256"),
    ("haproxy", "192.0.2.0 *", "it takes what is missing for 0", "bad_v1_three_parts"),
    ("haproxy", "192.0.2.1 0 *", "it takes this number for port 0", "bad_v1_port_00", "bad_v1_port_65536"),
    (
        "haproxy",
        "::ffff:c000:201 *",
        "it leaves mapped addresses mapped, which some readers of the header refuse",
        "*_both_mapped",
    ),
    (
        "haproxy",
        REFUSED,
        "it takes UNKNOWN only if nothing follows; the specification: ignore what follows",
        "v1_unknown_longest",
    ),
    ("haproxy", REFUSED, "as above", "v1_unknown_with_anything"),
    (
        "haproxy",
        REFUSED,
        "it does not take what is not of TCP; the specification: a receiver may, as itself",
        "v2_unspec*",
        "v2_unix_*",
    ),
]
_HEADERS_OF_NGINX = [
    *_told_and_led(
        "192.0.2.1 56324*", "it does not look into TLVs", "bad_authority_*", "bad_netns_*", "bad_ssl_*", "bad_tlv_*"
    ),
    *_told_and_led("192.0.2.1 56324*", "it knows no CRC32C", "bad_crc32c_*"),
    *_told_and_led("193.0.2.1 56324*", "it knows no CRC32C", "bad_crc32c_address"),
    *_told_and_led("itself", "it takes each command but PROXY for LOCAL; the specification: drop", "bad_v2_command_*"),
    *_told_and_led(
        "itself", "it takes each family that it does not know for none; the specification: refuse", "bad_v2_family_*"
    ),
    *_told_and_led(
        "itself", "it takes each transport but STREAM for none; the specification: refuse", "bad_v2_transport_*"
    ),
    *_told_and_led("itself", "it takes a client of UDP for none; edgeproxy refuses it on TCP", "v2_udp*"),
    *_told_and_led(
        "itself",
        "it looks for the first line feed, however long the line",
        "bad_v1_line_feed_in_unknown",
        "bad_v1_unknown_longer",
    ),
    *_told_and_led(
        "192.0.2.1 *",
        "it takes a number as it is written; the specification forbids leading zeros",
        "bad_v1_leading_zero_*",
    ),
    *_told_and_led("192.0.2.1 0*", "as above", "bad_v1_port_00"),
    *_told_and_led(REFUSED, "it reads 4096 bytes of a header at most", "v2_longest"),
    *_told_and_led(REFUSED, "it takes no header with these many fields", "v2_every_tlv"),
    *_told_and_led(REFUSED, "it takes no Unix addresses; the specification: a receiver may, as itself", "v2_unix_*"),
    *_told_and_led(
        "192.0.2.1 *", "it does not compare addresses with the family", "bad_v1_tcp4_mixed", "bad_v1_tcp6_with_ipv4"
    ),
    *_told_and_led("2001:db8::1 *", "it does not compare addresses with the family", "bad_v1_tcp4_with_ipv6"),
    *_told_and_led("::ffff:c000:201 *", "it leaves mapped addresses mapped", "*_both_mapped"),
    Difference("nginx", Door.HEADER, ("bad_v1_octal",), "192.0.2.1 *", "it reads numbers leniently"),
    Difference(
        "nginx",
        Door.HEADER,
        _BAD := ("bad_v1_part_256", "bad_v1_three_parts", "bad_v1_five_digits"),
        "itself",
        "it tells what stands there, and where that is no address goes by the peer's own; edgeproxy refuses",
    ),
    Difference("nginx", Door.HEADER, ("bad_v1_two_double_colons",), "itself", "as above"),
    Difference(
        "nginx", Door.TOLD, (*_BAD, "bad_v1_two_double_colons", "bad_v1_octal"), "*.*", "it tells what stands there"
    ),
    Difference(
        "nginx", Door.TOLD, ("bad_v1_five_digits", "bad_v1_two_double_colons"), "2001:*", "it tells what stands there"
    ),
    Difference(
        "nginx", Door.HEADER, ("v1_tcp4_longest",), "itself", "inet_addr(3): this address is its word for an error"
    ),
]


def _listed(door: Door, rows: Sequence[tuple[str, ...]]) -> list[Difference]:
    return [Difference(peer, door, tuple(streams), found, why) for peer, found, why, *streams in rows]


DIFFERENCES: list[Difference] = [
    *_listed(Door.NAME, _NAMES),
    *_listed(Door.SPOKEN, _SPOKEN),
    *_listed(Door.HOST, _HOSTS),
    *_listed(Door.HEADER, _HEADERS_OF_HAPROXY),
    *_HEADERS_OF_NGINX,
]
