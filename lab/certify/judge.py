"""What was declared and what was seen of one router -> its certificate. Pure."""

from __future__ import annotations

from lab.certify.certificate import Certificate
from lab.certify.endpoint_rows import tcp_rows, udp_rows
from lab.certify.passage_rows import icmp_rows, passage_rows
from lab.certify.port_rows import port_rows
from lab.certify.seen import Seen
from lab.certify.subject import Subject
from lab.certify.timer_rows import timer_rows


def judge(subject: Subject, seen: Seen) -> Certificate:
    """Row by row; without a declaration the certificate says only what was measured."""
    declared = subject.declared or {}
    rows = (
        *udp_rows(declared, seen),
        *port_rows(declared, seen),
        *tcp_rows(declared, seen),
        *timer_rows(declared, seen),
        *icmp_rows(declared, seen),
        *passage_rows(declared, seen),
    )
    engine, preset = declared.get("engine"), declared.get("preset")
    return Certificate(subject.router, subject.inside, subject.outside, engine, preset, rows, seen.failures)
