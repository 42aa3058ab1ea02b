"""Each reason for which an ordinary user has one user id only; never more than a limit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lab.host import Status, required
from lab.host.subordinate_ids import IdRange, subordinate_range

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="prepares the host as root")
ENTRY = "65534:2000000:65536"


def with_ranges(subuid: str, subgid: str) -> str:
    """A shell script that covers the two files, in a mount namespace of its own."""
    return f"""
        mount -t tmpfs none /mnt
        printf '{subuid}\\n' > /mnt/subuid
        printf '{subgid}\\n' > /mnt/subgid
        mount --bind /mnt/subuid /etc/subuid
        mount --bind /mnt/subgid /etc/subgid
    """


@pytest.mark.parametrize("entry", [ENTRY, "nobody:2000000:65536", "# a comment\\nother:100000:65536\\n" + ENTRY])
def test_ranges_by_name_or_number(host: Any, entry: str) -> None:
    ids = host.examine(prepare=with_ranges(entry, entry), before=host.nobody)["user ids"]
    assert ids.status is Status.OK
    assert "2000000" in ids.found


def test_no_ranges(host: Any) -> None:
    nothing = "other:100000:65536"
    examined = host.examine(prepare=with_ranges(nothing, nothing), before=host.nobody)
    assert examined["user ids"].status is Status.LIMITED
    assert examined["user ids"].mend == 'echo "nobody:165536:65536" | sudo tee -a /etc/subuid /etc/subgid'
    assert examined["user ids"] not in required(examined.values())


def test_the_line_that_mends_the_ranges_mends_them(host: Any) -> None:
    nothing = with_ranges("other:100000:65536", "other:100000:65536")
    mend = host.examine(prepare=nothing, before=host.nobody)["user ids"].mend.replace("sudo ", "")
    assert host.examine(prepare=f"{nothing}\n{mend} > /dev/null", before=host.nobody)["user ids"].status is Status.OK


def test_files_covered(host: Any) -> None:
    prepare = "mount --bind /dev/null /etc/subuid; mount --bind /dev/null /etc/subgid"
    assert host.examine(prepare=prepare, before=host.nobody)["user ids"].status is Status.LIMITED


def test_one_range_too_short(host: Any) -> None:
    ids = host.examine(prepare=with_ranges(ENTRY, "65534:2000000:65535"), before=host.nobody)["user ids"]
    assert ids.status is Status.LIMITED
    assert "/etc/subgid gives 65535" in ids.found
    assert ids.mend.endswith("sudo tee -a /etc/subgid")


def test_programs_not_installed(host: Any) -> None:
    prepare = with_ranges(ENTRY, ENTRY) + "mount --bind /dev/null $(command -v newgidmap)"
    ids = host.examine(prepare=prepare, before=host.nobody)["user ids"]
    assert ids.status is Status.LIMITED
    assert ids.found == "only one user id: no newgidmap"
    assert ids.mend == "sudo apt-get install uidmap"


def test_programs_without_rights(host: Any) -> None:
    prepare = with_ranges(ENTRY, ENTRY) + (
        "cp $(command -v newuidmap) /mnt/plain; chmod 755 /mnt/plain; mount --bind /mnt/plain $(command -v newuidmap)"
    )
    ids = host.examine(prepare=prepare, before=host.nobody)["user ids"]
    assert ids.status is Status.LIMITED
    assert "neither setuid root nor with file capabilities" in ids.found
    assert ids.mend.startswith("sudo chmod u+s /")


def test_programs_with_file_capabilities(host: Any) -> None:
    prepare = (
        with_ranges(ENTRY, ENTRY)
        + """
        for each in newuidmap:cap_setuid newgidmap:cap_setgid; do
            program=${each%:*}
            cp $(command -v $program) /mnt/$program
            chmod 755 /mnt/$program
            setcap ${each#*:}=ep /mnt/$program
            mount --bind /mnt/$program $(command -v $program)
        done
    """
    )
    assert host.examine(prepare=prepare, before=host.nobody)["user ids"].status is Status.OK
    without_effect = host.examine(prepare=prepare, before=f"{host.nobody} --no-new-privs")["user ids"]
    assert "no_new_privs" in without_effect.found


def test_no_new_privileges(host: Any) -> None:
    ids = host.examine(prepare=with_ranges(ENTRY, ENTRY), before=f"{host.nobody} --no-new-privs")["user ids"]
    assert ids.status is Status.LIMITED
    assert "no_new_privs" in ids.found


def test_no_user_namespace_to_map_ids_in(host: Any) -> None:
    refusing = host.refusing("unshare", "EPERM", "0=0x10000000")
    ids = host.examine(prepare=with_ranges(ENTRY, ENTRY), before=f"{refusing} {host.nobody}")["user ids"]
    assert ids.status is Status.NOT_TRIED


def test_root_has_all_ids(host: Any) -> None:
    assert host.examine()["user ids"].status is Status.NOT_NEEDED


def test_root_of_a_user_namespace_with_one_id(host: Any) -> None:
    ids = host.examine(enter="unshare --user --map-root-user")["user ids"]
    assert ids.status is Status.LIMITED
    assert "with 1 user ids" in ids.found


def test_the_largest_range_counts(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("alice:100000:10\n1000:200000:65536\nbob:300000:70000\nalice:broken\n\n")
    assert subordinate_range(str(file), "alice", 1000) == IdRange(200000, 65536)
    assert subordinate_range(str(file), "carol", 1002) is None
    assert subordinate_range(str(tmp_path / "absent"), "alice", 1000) is None
