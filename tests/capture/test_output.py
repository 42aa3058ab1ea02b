"""A file of whole blocks whatever happens, and one that holds the latest within a bound."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.capture.output import LatestBlocks, WholeFile, join, open_output
from lab.errors import UsageError


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def limit() -> Iterator[int]:
    """Bytes that a file of this process can have."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_when_a_block_does_not_fit_those_before_are_the_file(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "a"
    with closing(open_output(path)) as file:
        output = WholeFile(file, "a.pcapng")
        output.write([b"a" * 300])
        with pytest.raises(OSError, match="File too large; what came before is in the file, whole") as caught:
            output.write([b"b" * 300, b"c" * 300, b"d" * 300])
        assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, "a.pcapng")
        assert path.read_bytes() == b"a" * 300 + b"b" * 300 + b"c" * 300
        output.write([b"e" * (limit - 900)])  # what is small enough still fits
        assert path.stat().st_size == limit


def test_a_full_device_is_an_error_and_is_not_cut() -> None:
    with closing(os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)) as file:
        output = WholeFile(file, "/dev/full")
        with pytest.raises(OSError, match=r"No space left on device: '/dev/full'|No space left on device"):
            output.write([b"block"])


def test_a_pipe_that_nobody_reads_is_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        WholeFile(write, "-").write([b"block"])
    os.close(write)


@pytest.mark.parametrize(("path", "text"), [("no/such/a", "there is no folder .*no/such; make it"), (".", "name a")])
def test_a_path_that_cannot_be_a_file_is_wrong_input(tmp_path: Path, path: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        open_output(tmp_path / path)


def test_a_file_in_place_of_a_folder_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(UsageError, match="Not a directory"):
        open_output(tmp_path / "a" / "b")


@settings(max_examples=50, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(1, 120), max_size=8), max_size=12),
    bound=st.integers(100, 900),
)
def test_the_latest_blocks_are_kept_within_the_bound(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], bound: int
) -> None:
    opening = b"opening"
    folder = tmp_path_factory.mktemp("latest")
    paths = [folder / "0", folder / "1"]
    descriptors = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC) for path in paths]
    output = LatestBlocks((descriptors[0], descriptors[1]), bound, opening)
    given_blocks: list[bytes] = []
    for batch in batches:
        blocks = [bytes([number % 250]) * size for number, size in enumerate(batch, len(given_blocks))]
        output.write(blocks)
        given_blocks += blocks
    for descriptor in descriptors:
        os.close(descriptor)
    older, latest = paths[1 - output.latest], paths[output.latest]
    with older.open("rb") as first, latest.open("rb") as second, (folder / "joined").open("wb") as joined:
        join(first, second, len(opening), joined)
    kept = (folder / "joined").read_bytes()
    assert kept.startswith(opening)
    kept = kept.removeprefix(opening)
    assert b"".join(given_blocks).endswith(kept)
    largest = max(map(len, given_blocks), default=0)
    assert len(kept) <= max(bound, 2 * largest)
    assert len(kept) >= min(sum(map(len, given_blocks)), bound // 2 - len(opening) - largest)
