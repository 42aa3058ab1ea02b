"""nftables and connection tracking on hosts that lack a part of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lab.host import Status, required
from lab.host.firewall import _PARTS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="prepares the host as root")
NETFILTER = ("0=16", "2=12")  # socket(AF_NETLINK, ..., NETLINK_NETFILTER)


def test_nft_not_installed(host: Any) -> None:
    examined = host.examine(prepare="mount --bind /dev/null $(readlink -f $(command -v nft))")
    assert [each.name for each in required(examined.values())] == ["nftables"]
    assert examined["nftables"].found == "the program nft is not installed"
    assert examined["nftables"].mend == "sudo apt-get install nftables"


def test_nft_is_found_outside_the_path(host: Any) -> None:
    assert host.examine(before="env PATH=/nowhere")["nftables"].status is Status.OK


def test_kernel_without_netfilter(host: Any) -> None:
    examined = host.examine(before=host.refusing("socket", "EPROTONOSUPPORT", *NETFILTER))
    assert examined["nftables"].status is Status.MISSING
    assert all(part in examined["nftables"].found for part in _PARTS)
    assert examined["nftables"].mend.startswith("sudo modprobe -a nf_tables")
    assert examined["connection tracking"].status is Status.LIMITED
    assert examined["connection tracking"].mend == "sudo modprobe nf_conntrack_netlink"
    assert examined["connection tracking"] not in required(examined.values())


@pytest.mark.parametrize(("word", "part"), [("masquerade", "masquerade"), ("ct state", "connection tracking")])
def test_the_missing_part_is_named(host: Any, tmp_path: Path, word: str, part: str) -> None:
    """The kernel here has all parts, so a program in front of nft refuses one of them."""
    nft = tmp_path / "nft"
    nft.write_text(
        f"""#!/bin/sh
        rules=$(cat)
        case $rules in *"{word}"*) echo "Error: Could not process rule: No such file or directory" >&2; exit 1;; esac
        printf '%s\\n' "$rules" | exec {nft_path()} "$@"
        """
    )
    nft.chmod(0o755)
    found = host.examine(before=f"env PATH={tmp_path}:$PATH")["nftables"]
    assert found.status is Status.MISSING
    assert part in found.found
    assert "Could not process rule" in found.found
    assert not any(other in found.found for other in _PARTS if part not in other)


def nft_path() -> str:
    return next(path for folder in ("/usr/sbin", "/sbin") if os.access(path := f"{folder}/nft", os.X_OK))


def test_iptables_not_installed(host: Any) -> None:
    prepare = "mount --bind /dev/null $(readlink -f $(command -v iptables-restore))"
    found = host.examine(prepare=prepare)["packet queue"]
    assert found.status is Status.MISSING
    assert found.found == "iptables is not installed; NATs that need natbox cannot be made"
    assert found.mend == "sudo apt-get install iptables"


def test_kernel_without_packet_queue(host: Any, tmp_path: Path) -> None:
    program = tmp_path / "iptables-restore"
    program.write_text("#!/bin/sh\necho 'Extension NFQUEUE revision 0 not supported' >&2; exit 2\n")
    program.chmod(0o755)
    found = host.examine(before=f"env PATH={tmp_path}:$PATH")["packet queue"]
    assert found.status is Status.MISSING
    assert "NFQUEUE revision 0 not supported" in found.found
    assert found.mend.startswith("sudo modprobe -a nfnetlink_queue")


def test_packet_queue(host: Any) -> None:
    assert host.examine()["packet queue"].status is Status.OK
