"""Whether the real programs that run in nodes are installed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lab.host import programs
from lab.host.finding import Feature, Finding, Status, Verdict, finding
from lab.host.trial import Outcome, Refusal, run_program

STREAM_MODULE = "ngx_stream_module.so"
_STREAM_PACKAGE = "libnginx-mod-stream"


class Program(NamedTuple):
    """A program and the Debian package that it comes from."""

    name: str
    package: str
    features: tuple[Feature, ...]


PROGRAMS = (
    Program("ssh", "openssh-client", (Feature.SSH,)),
    Program("sshd", "openssh-server", (Feature.SSH,)),
    Program("nginx", "nginx", (Feature.WEB,)),
    Program("dnsmasq", "dnsmasq-base", (Feature.DNS,)),
    Program("nebula", "nebula", (Feature.MESH,)),
    Program("nebula-cert", "nebula", (Feature.MESH,)),
    Program("wireguard-go", "wireguard-go", (Feature.MESH,)),
    Program("wg", "wireguard-tools", (Feature.MESH,)),
    Program("miniupnpd", "miniupnpd-nftables", (Feature.UPNP,)),
    Program("openssl", "openssl", (Feature.CERTIFICATES,)),
    Program("curl", "curl", (Feature.PROBES,)),
    Program("dig", "bind9-dnsutils", (Feature.PROBES,)),
    Program("ping", "iputils-ping", (Feature.PROBES,)),
)


def program_findings() -> list[Finding]:
    """One finding for each program."""
    return [
        finding(program.name, program.features, judge_program(program, programs.find(program.name)))
        for program in PROGRAMS
    ]


def judge_program(program: Program, path: str | None) -> Verdict:
    """`path` is where the program was found."""
    if path is None:
        return Verdict(Status.MISSING, "not installed", f"sudo apt-get install {program.package}")
    return Verdict(Status.OK, path)


def find_stream_module() -> str:
    """Trial: asks nginx for its stream module with SNI preread: built in, or a file beside the other modules."""
    program = programs.find("nginx")
    if program is None:
        raise Refusal("nginx is not installed")
    ended = run_program([program, "-V"])
    options = ended.complaint.split()
    if ended.status:
        raise Refusal(f"nginx -V ends with status {ended.status}")
    if "--with-stream_ssl_preread_module" not in options:
        raise Refusal("nginx is built without --with-stream_ssl_preread_module")
    if "--with-stream" in options:
        return "built in"
    folder = next((option.partition("=")[2] for option in options if option.startswith("--modules-path=")), "")
    module = Path(folder, STREAM_MODULE)
    if "--with-stream=dynamic" not in options or not module.is_file():
        raise Refusal(f"{module} does not exist")
    return str(module)


def stream_finding(outcome: Outcome) -> Finding:
    """The finding, from the trial `find_stream_module`."""
    return finding("nginx stream module", (Feature.WEB,), judge_stream_module(outcome))


def judge_stream_module(outcome: Outcome) -> Verdict:
    """The article's first way through CGNAT is an SNI map in nginx stream."""
    if outcome.ok:
        return Verdict(Status.OK, outcome.text)
    return Verdict(Status.MISSING, str(outcome), f"sudo apt-get install nginx {_STREAM_PACKAGE}")
