"""Each reason for which a host gives no namespaces is told from the others."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from lab.host import Status, required
from lab.host.namespaces import judge_namespaces, judge_user_namespace
from lab.host.trial import End, Outcome, Stage

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="prepares the host as root")

NESTED = "unshare --user --map-root-user"


def refused(stage: Stage, number: int) -> Outcome:
    return Outcome(End.REFUSED, stage, number)


@pytest.mark.essential
@pytest.mark.single_id
def test_no_user_namespaces_allowed(host: Any) -> None:
    examined = host.examine(
        enter=NESTED, prepare="echo 0 > /proc/sys/user/max_user_namespaces", before=host.without_rights
    )
    assert [each.name for each in required(examined.values())] == ["user namespaces"]
    assert examined["user namespaces"].found == "user.max_user_namespaces is 0"
    assert examined["user namespaces"].mend == "sudo sysctl -w user.max_user_namespaces=65536"
    assert examined["namespaces"].status is Status.NOT_TRIED
    assert examined["veth"].status is Status.NOT_TRIED
    assert examined["user ids"].status in (Status.NOT_TRIED, Status.LIMITED)


@root_only
def test_user_namespaces_refused_by_seccomp(host: Any) -> None:
    refusing = host.refusing("unshare", "EPERM", "0=0x10000000")
    user = host.examine(before=f"{refusing} {host.nobody}")["user namespaces"]
    assert user.status is Status.MISSING
    assert "seccomp" in user.found
    assert "--security-opt seccomp=unconfined" in user.mend


@root_only
def test_user_namespaces_not_in_the_kernel(host: Any) -> None:
    refusing = host.refusing("unshare", "EINVAL", "0=0x10000000")
    user = host.examine(before=f"{refusing} {host.nobody}")["user namespaces"]
    assert user.status is Status.MISSING
    assert "CONFIG_USER_NS" in user.found


@root_only
def test_user_namespaces_refused_in_a_chroot(host: Any) -> None:
    prepare = """
        mount -t tmpfs none /mnt
        mkdir /mnt/root
        for entry in /*; do
            [ -d "$entry" ] && [ ! -L "$entry" ] && [ "$entry" != /mnt ] || continue
            mkdir "/mnt/root$entry"
            mount --rbind "$entry" "/mnt/root$entry"
        done
        for link in bin sbin lib lib64; do [ ! -L /$link ] || cp -P /$link /mnt/root/; done
    """
    before = "chroot --userspec=65534:65534 --groups= /mnt/root env"
    user = host.examine(prepare=prepare, before=before)["user namespaces"]
    assert user.status is Status.MISSING
    assert "chroot" in user.found
    assert "pivot_root" in user.mend


@root_only
def test_a_chroot_that_is_a_mount_looks_like_any_refusal(host: Any) -> None:
    before = "chroot --userspec=65534:65534 --groups= /mnt env"
    user = host.examine(prepare="mount --rbind / /mnt", before=before)["user namespaces"]
    assert user.status is Status.MISSING
    assert "Operation not permitted" in user.found


@root_only
def test_a_user_namespace_without_rights_inside(host: Any) -> None:
    """What AppArmor does on Ubuntu, done by seccomp: the user namespace is made, but nothing may be done in it."""
    refusing = host.refusing("unshare", "EPERM", "0=0x20000")
    examined = host.examine(before=f"{refusing} {host.nobody}")
    assert examined["user namespaces"].status is Status.MISSING
    assert "it is made, but the mount namespace in it is denied" in examined["user namespaces"].found
    assert examined["namespaces"].status is Status.NOT_TRIED


@root_only
def test_a_root_without_rights_needs_a_user_namespace(host: Any) -> None:
    assert host.examine()["user namespaces"].status is Status.NOT_NEEDED
    assert host.examine(before=host.without_rights)["user namespaces"].status is Status.OK


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.parametrize("kind", ["mnt", "net", "uts", "ipc", "pid"])
def test_a_kind_of_namespaces_is_used_up(host: Any, kind: str) -> None:
    examined = host.examine(enter=NESTED, prepare=f"echo 0 > /proc/sys/user/max_{kind}_namespaces")
    assert [each.name for each in required(examined.values())] == ["namespaces"]
    assert f"user.max_{kind}_namespaces is 0" in examined["namespaces"].found
    assert examined["namespaces"].mend == f"sudo sysctl -w user.max_{kind}_namespaces=65536"
    assert examined["nftables"].status is Status.NOT_TRIED


@root_only
def test_a_namespace_that_cannot_be_used(host: Any) -> None:
    namespaces = host.examine(before=host.refusing("sethostname", "EPERM"))["namespaces"]
    assert namespaces.status is Status.MISSING
    assert namespaces.required


@root_only
@pytest.mark.parametrize("pretended", [[], ["0=0x20000000"], ["0=0x40000000"]], ids=["all", "PID", "network"])
def test_a_sandbox_that_pretends_to_make_namespaces(host: Any, pretended: list[str]) -> None:
    """No trial may then run, for it would change the host; here the host is namespaces of the test's own."""
    examined = host.examine(
        enter="unshare --mount --net --uts --ipc --pid --fork --mount-proc",
        before=host.refusing("unshare", "PRETEND", *pretended),
    )
    assert "made nothing" in examined["namespaces"].found
    assert examined["namespaces"].status is Status.MISSING
    assert examined["veth"].status is Status.NOT_TRIED


# AppArmor and Debian's own switch are not in every kernel: judged from facts.


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        (Stage.ID_MAP, errno.EPERM),
        (Stage.ID_MAP, errno.EACCES),
        (Stage.MOUNT_NAMESPACE, errno.EPERM),
        (Stage.PRIVATE_MOUNTS, errno.EACCES),
        (Stage.USER_NAMESPACE, errno.EACCES),
    ],
)
def test_apparmor_restriction(host: Any, stage: Stage, number: int) -> None:
    restricted = host.facts(apparmor_restricts=1)
    verdict = judge_user_namespace(refused(stage, number), restricted)
    assert verdict.status is Status.MISSING
    assert "AppArmor" in verdict.found
    assert verdict.mend == "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    assert "AppArmor" not in judge_user_namespace(refused(stage, number), host.facts(apparmor_restricts=0)).found


def test_apparmor_restriction_that_lets_this_program_pass(host: Any) -> None:
    done = Outcome(End.DONE, Stage.ACTION)
    assert judge_user_namespace(done, host.facts(apparmor_restricts=1)).status is Status.OK


def test_switch_of_old_debian(host: Any) -> None:
    verdict = judge_user_namespace(refused(Stage.USER_NAMESPACE, errno.EPERM), host.facts(unprivileged_userns_clone=0))
    assert verdict.status is Status.MISSING
    assert verdict.mend == "sudo sysctl -w kernel.unprivileged_userns_clone=1"


def test_chroot_seen_from_outside(host: Any) -> None:
    verdict = judge_user_namespace(refused(Stage.USER_NAMESPACE, errno.EPERM), host.facts(chrooted=True))
    assert "chroot" in verdict.found


def test_limit_reached_or_nested_too_deep(host: Any) -> None:
    verdict = judge_user_namespace(refused(Stage.USER_NAMESPACE, errno.ENOSPC), host.facts())
    assert verdict.status is Status.MISSING
    assert "nested 32 deep" in verdict.found


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM])
def test_refusal_without_a_known_cause(host: Any, number: int) -> None:
    verdict = judge_user_namespace(refused(Stage.USER_NAMESPACE, number), host.facts())
    assert verdict.status is Status.MISSING
    assert os.strerror(number) in verdict.found
    assert "dmesg" in verdict.mend


def test_kind_of_namespace_not_in_the_kernel(host: Any) -> None:
    verdict = judge_namespaces(refused(Stage.NETWORK_NAMESPACE, errno.EINVAL), host.facts())
    assert verdict.status is Status.MISSING
    assert "network namespace" in verdict.found
    assert "not built into" in verdict.found
