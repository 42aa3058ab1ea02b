"""Headers as the cases send them, beside vectors that were computed elsewhere; and the reader of what comes."""

from __future__ import annotations

import pytest

from lab.conform.cases import FOUR, SIX, Must, cases
from lab.conform.header import Endpoints, crc32c, line, named, read, summed, tlv

ONE = Endpoints(("192.0.2.1", 56324), ("198.51.100.1", 443))
WITH_NAMES = (
    "0d0a0d0a000d0a515549540a2121003e20010db800000000000000000000000120010db8000000000000000000000002dc0401bb"
    "010002683202000b6578616d706c652e636f6d03000482cd7e5f"
)
TWO = Endpoints(("2001:db8::1", 56324), ("2001:db8::2", 443))


def test_the_checksum_is_that_of_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 9260, appendix A, and every catalogue of checksums


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (named(ONE), "0d0a0d0a000d0a515549540a2111000cc0000201c6336401dc0401bb"),
        (summed(ONE), "0d0a0d0a000d0a515549540a21110013c0000201c6336401dc0401bb030004737ee919"),
        (
            summed(TWO, tlv(0x01, b"h2") + tlv(0x02, b"example.com")),
            WITH_NAMES,
        ),
    ],
)
def test_headers_are_as_others_make_them(made: bytes, expected: str) -> None:
    assert made.hex() == expected


def test_each_case_has_a_name_of_its_own_and_each_kind_has_some() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))
    assert {case.must for case in cases()} == {*Must}


@pytest.mark.parametrize("whole", [line(FOUR), line(SIX), named(FOUR), summed(SIX, tlv(0x04, bytes(30)))])
def test_a_header_is_read_when_it_is_whole_and_not_before(whole: bytes) -> None:
    for size in range(len(whole)):
        assert read(whole[:size]) is None
    expected = FOUR.client if b"192.0.2.33" in whole or whole == named(FOUR) else SIX.client
    assert read(whole + b"rest") == (expected, b"rest")


def test_what_is_no_header_is_none() -> None:
    for data in (b"GET / HTTP/1.1\r\n", b"PROXY TCP4\r\n", b"\r\n\r\n\0\r\nQUIT\r", b"PROXY " + b"x" * 200):
        with pytest.raises(ValueError, match=r"no PROXY header|does not appear"):
            read(data)
    assert read(b"PROXY UNKNOWN\r\nrest") == (None, b"rest")
