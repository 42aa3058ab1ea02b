"""Whether the kernel and the machine are ones that the lab is built for."""

from __future__ import annotations

import os

from lab.host.finding import Feature, Finding, Status, Verdict, finding

OLDEST = (5, 4)  # nat chains in inet tables came with 5.2, pidfd_open with 5.3; 5.4 is the next long-term release
ARCHITECTURES = ("x86_64", "aarch64")


def kernel_finding() -> Finding:
    """The finding about the running kernel."""
    about = os.uname()
    return finding("kernel", (Feature.LABS,), judge_kernel(about.sysname, about.release, about.machine))


def judge_kernel(system: str, release: str, machine: str) -> Verdict:
    """As uname(2) says them."""
    if system != "Linux":
        return Verdict(Status.MISSING, f"{system}: a lab is made of Linux namespaces", "vagrant up && vagrant ssh")
    found = f"Linux {release} on {machine}"
    if _version(release) < OLDEST:
        found += f": older than {OLDEST[0]}.{OLDEST[1]}, the oldest that the lab is built for"
        return Verdict(Status.LIMITED, found, "sudo apt-get install linux-image-generic  # Debian: linux-image-amd64")
    if machine not in ARCHITECTURES:
        return Verdict(Status.LIMITED, f"{found}: the lab is built for {' and '.join(ARCHITECTURES)}", "make test")
    return Verdict(Status.OK, found)


def _version(release: str) -> tuple[int, ...]:
    """Major and minor of a release such as 6.1.0-18-amd64; zeros where there is no number."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return tuple(int(part) if part.isdecimal() else 0 for part in (major, minor))
