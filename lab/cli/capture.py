"""`lab capture`: write what interfaces of nodes carry to a pcapng file, or into a pipe."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cli.live_line import LiveLine
from lab.cli.parser import Parser
from lab.cli.running_lab import chosen
from lab.cli.style import Style
from lab.cli.table import table
from lab.errors import ExitCode

if TYPE_CHECKING:
    from lab.capture.recorder import Recorder
    from lab.capture.sockets import Listening

STANDARD_OUTPUT = "-"


def run(words: list[str]) -> int:
    """Capture until told to stop."""
    parser = _parser()
    options = parser.parse_args(words)
    is_piped = options.file == STANDARD_OUTPUT
    if is_piped and options.json:
        parser.error("--json and -w - both want the standard output; name a file")
    if is_piped and sys.stdout.isatty():
        parser.error("-w -: a capture is not for a terminal; add `| tshark -r -`, or name a file")
    gc.enable()  # it may run for long
    from lab.capture.output import WholeFile, open_output
    from lab.capture.recorder import Bounds, Channel, Ending, Recorder
    from lab.capture.ring import Ring
    from lab.capture.sockets import is_ethernet, listen, opening
    from lab.capture.target import targets
    from lab.realise.lab import Lab

    with contextlib.closing(Lab(chosen(options.lab))) as lab, _told_to_stop() as stop, _full_disk_mended():
        where = targets(lab.facts, options.targets)
        listening = listen(lab.nodes, where, expression=options.filter, snaplen=options.snaplen)
        began = time.monotonic()
        descriptor = sys.stdout.fileno() if is_piped else open_output(Path(options.file))
        output = WholeFile(descriptor, options.file)
        output.write([opening(lab.facts, listening)])
        channels = [Channel(Ring(each.socket, each.size), is_ethernet(each.interface)) for each in listening]
        recorder = Recorder(channels, output, Bounds(options.count, options.seconds, options.snaplen))
        with LiveLine(silent=is_piped or not sys.stderr.isatty()) as line:
            line.say(_progress(0, 0))
            ending = recorder.run(
                stop, descriptor if is_piped else None, lambda packets, size: line.say(_progress(packets, size))
            )
        seconds = time.monotonic() - began
    if options.json:
        print(json.dumps(_plain(lab.name, options.file, ending, seconds, listening, recorder), indent=2))
    else:
        _tell(listening, recorder, sys.stderr if is_piped else sys.stdout)
    is_short = ending is Ending.GONE and bool(options.count or options.seconds)
    if ending is Ending.GONE:
        print(f"lab: {'error' if is_short else 'note'}: the interfaces are gone; the lab has ended?", file=sys.stderr)
    return ExitCode.FAILED if is_short else ExitCode.OK


def _parser() -> Parser:
    parser = Parser(
        "capture",
        "Write what interfaces of nodes carry to a pcapng file, which Wireshark and tshark read: several interfaces\n"
        "in one file, each packet with its interface, direction and time in nanoseconds, addresses with the names of\n"
        "their nodes. Frames are as a wire would have carried them: large ones that the kernel has not cut are cut\n"
        "(the parts have one time), and checksums that it left to the network card are worked out.",
        notes="Ctrl-C ends it, with a whole file. Packets for which there was no room are counted, in\n"
        "the file too. It follows some 100,000 small packets a second, or 50,000 of full size (0.6 Gbit/s), and\n"
        "bursts of 16 MiB at each interface (128 MiB at all together); a filter is applied before. A packet that\n"
        'passes two of the interfaces is there twice: `frame.interface_name == "nas:home"` in Wireshark shows one.\n'
        "--json: lab, file, ending (asked, count reached, time over, interfaces gone), seconds, packets, bytes,\n"
        "dropped, interfaces (name, packets, bytes, received, dropped); received counts uncut frames.",
        example="lab capture nas:home vps-a -w door.pcapng --filter 'tcp port 443' --for 10s\n"
        "lab capture home -w - | tshark -r -",
    )
    parser.add_argument(
        "targets",
        metavar="TARGET",
        nargs="*",
        help="NODE:INTERFACE, NODE (all its interfaces), or a network (all interfaces on it); default: every interface",
    )
    parser.add_argument("-w", dest="file", metavar="FILE", required=True, help="the file to write; - for a pipe")
    parser.add_argument("--filter", metavar="EXPR", default="", help="only what matches, as tcpdump has it")
    parser.add_argument(
        "--for", dest="seconds", metavar="TIME", type=_duration, default=0.0, help="end after so long, as 10s or 500ms"
    )
    parser.add_argument("--count", metavar="N", type=_positive, default=0, help="end after so many packets")
    parser.add_argument("--snaplen", metavar="BYTES", type=_positive, default=0, help="keep so much of a packet")
    parser.add_lab()
    parser.add_json("the summary as JSON, for programs")
    return parser


def _duration(text: str) -> float:
    from lab.topology.faults import Wrong
    from lab.topology.units import parse_duration

    try:
        return parse_duration(text)
    except Wrong as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from wrong


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:20]) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a whole number above 0")
    return int(text)


@contextlib.contextmanager
def _told_to_stop() -> Iterator[int]:
    """A descriptor that can be read once Ctrl-C or SIGTERM has come; a second one acts as it always does."""
    told, tell = os.pipe2(os.O_CLOEXEC)

    def stop(number: int, _frame: object) -> None:
        os.write(tell, b"!")
        signal.signal(number, before[number])

    before = {int(number): signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)
        os.close(tell)


@contextlib.contextmanager
def _full_disk_mended() -> Iterator[None]:
    """What to do about a disk without room is said with the error."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        mend = "free some space, or keep less with --filter or --snaplen"
        raise OSError(error.errno, f"{error.strerror}; {mend}", error.filename) from error


def _progress(packets: int, size: int) -> str:
    return f"capturing, Ctrl-C ends it: {packets} packets, {_size(size)}"


def _size(size: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 10_000:
            return f"{size} {unit}"
        size //= 1000
    return f"{size} GB"


def _tell(listening: Sequence[Listening], recorder: Recorder, stream: Any) -> None:
    rows = [
        [str(each.target), str(channel.packets), str(channel.bytes), str(channel.dropped)]
        for each, channel in zip(listening, recorder.channels, strict=True)
    ]
    titles = ["INTERFACE", "PACKETS", "BYTES", "DROPPED"]
    painter = lambda column, word: "red" if column == 3 and word != "0" else ""  # noqa: E731
    print(table(titles, rows, Style(stream), painter), end="", file=stream)
    dropped = sum(channel.dropped for channel in recorder.channels)
    if dropped:
        print(
            f"lab: warning: {dropped} packets came faster than they could be written and are not in the file; capture "
            "at fewer interfaces, or with a --filter",
            file=sys.stderr,
        )


def _plain(
    lab: str, file: str, ending: str, seconds: float, listening: Sequence[Listening], recorder: Recorder
) -> dict[str, Any]:
    channels = recorder.channels
    return {
        "lab": lab,
        "file": file,
        "ending": ending,
        "seconds": round(seconds, 3),
        "packets": sum(channel.packets for channel in channels),
        "bytes": sum(channel.bytes for channel in channels),
        "dropped": sum(channel.dropped for channel in channels),
        "interfaces": [
            {
                "name": str(each.target),
                "packets": channel.packets,
                "bytes": channel.bytes,
                "received": channel.received,
                "dropped": channel.dropped,
            }
            for each, channel in zip(listening, channels, strict=True)
        ],
    }
