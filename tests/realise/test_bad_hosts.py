"""`lab up` on hosts that lack something, made for real in namespaces: exit code 3, what and how to mend it, no trace.

Each host is a PID, network and mount namespace of its own; in it a witness runs the command, then counts what is left.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
WITNESS = """
import json, os, subprocess, sys, time
done = subprocess.run(sys.argv[1:], capture_output=True, text=True, timeout=100)
def living(pid):
    try:
        if open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z":
            return [open(f"/proc/{pid}/cmdline").read()]
    except OSError:  # it has ended
        pass
    return []
def look():
    others = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != "1"]
    return sum(map(living, others), []), [line for line in open("/proc/net/unix") if "homelab-lab" in line]
left, doors = look()
deadline = time.monotonic() + 20
while left and done.returncode and "--keep" not in sys.argv and time.monotonic() < deadline:
    left, doors = look()  # who was told to end may need a moment
links = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
print(json.dumps({"code": done.returncode, "output": done.stdout, "errors": done.stderr,
                  "left": left, "doors": doors, "links": links, "mounts": open("/proc/self/mountinfo").read()}))
"""
OWN_NAMESPACES = "--mount --pid --fork --mount-proc --net"
AS_ROOT = f"unshare {OWN_NAMESPACES}"
AS_ROOT_OF_ITS_OWN = f"unshare --user --map-root-user {OWN_NAMESPACES}"
NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups"

PLAIN = "nodes: {a: {}}\n"
WITH_NAT = """
networks: {internet: {prefixes: [203.0.113.0/24]}, home: {prefixes: [192.168.1.0/24]}}
nodes: {router: {role: router, links: {internet: auto, home: auto}, nat: {outside: internet}}}
"""
WITH_SSHD = "nodes: {nas: {services: {ssh: {use: sshd}}}, pi: {services: {web: {run: sleep 60, user: nobody}}}}\n"

root_only = pytest.mark.root


@dataclass(frozen=True, slots=True)
class Answer:
    """What the command said, and the host after it."""

    code: int
    output: str
    errors: str
    left: list[str]
    doors: list[str]
    links: list[str]
    mounts: str


Host = Callable[..., Answer]


@pytest.fixture
def host() -> Iterator[Host]:
    folder = Path(tempfile.mkdtemp(prefix="bad-host-"))
    folder.chmod(0o755)  # another user reads it

    def up(topology: str, *options: str, enter: str = AS_ROOT, prepare: str = "", before: str = "") -> Answer:
        """`enter` makes namespaces, `prepare` is a shell script in them, `before` are words before the command."""
        (folder / "t.yaml").write_text(topology)
        command = [sys.executable, "-m", "lab.cli.main", "up", *options, str(folder / "t.yaml")]
        witness = shlex.join([sys.executable, "-c", WITNESS, *shlex.split(before), *command])
        done = subprocess.run(
            [*shlex.split(enter), "sh", "-euc", f"{prepare}\nexec {witness}"],
            cwd=ROOT,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Answer(**json.loads(done.stdout))

    yield up
    shutil.rmtree(folder)


def refusing(call: str, error: str, *conditions: str) -> str:
    """A command before which a system call is refused."""
    script = ROOT / "tests" / "host" / "refuse_syscall.py"
    return shlex.join([sys.executable, str(script), call, error, *conditions, "--"])


def assert_refused(answer: Answer, *said: str) -> None:
    """Exit code 3 with these words, and nothing of the lab or of the looking for causes is left."""
    assert answer.code == ExitCode.HOST_NOT_ABLE, answer
    assert answer.output == ""
    assert "\nlab: error: " in f"\n{answer.errors}"
    assert "Traceback" not in answer.errors
    for words in said:
        assert words in answer.errors
    assert_no_trace(answer)


def assert_no_trace(answer: Answer) -> None:
    assert answer.left == []
    assert answer.doors == []
    assert answer.links == ["lo"]
    assert "/run/lab" not in answer.mounts


@pytest.mark.essential
def test_the_witness_sees_a_lab_that_is_up(host: Host) -> None:
    """Were it blind, every test here would pass."""
    answer = host(PLAIN, "-q", enter=AS_ROOT_OF_ITS_OWN)
    assert answer.code == ExitCode.OK, answer
    assert any("lab.realise.supervisor" in command for command in answer.left)
    assert answer.doors


@pytest.mark.essential
@pytest.mark.parametrize("kind", ["net", "mnt", "uts", "ipc", "pid"])
def test_no_namespaces_of_a_kind(host: Host, kind: str) -> None:
    answer = host(PLAIN, enter=AS_ROOT_OF_ITS_OWN, prepare=f"echo 0 > /proc/sys/user/max_{kind}_namespaces")
    assert_refused(
        answer, f"user.max_{kind}_namespaces is 0", f"mend it with: sudo sysctl -w user.max_{kind}_namespaces=65536"
    )


@pytest.mark.essential
def test_what_the_host_lacks_is_told_to_programs_too(host: Host) -> None:
    answer = host(PLAIN, "--json", enter=AS_ROOT_OF_ITS_OWN, prepare="echo 0 > /proc/sys/user/max_net_namespaces")
    assert answer.code == ExitCode.HOST_NOT_ABLE, answer
    found = json.loads(answer.output)
    assert (found["kind"], found["exit_code"], found["faults"]) == ("HostError", ExitCode.HOST_NOT_ABLE, [])
    assert answer.errors == f"lab: error: {found['error']}\n"
    mends = [each["mend"] for each in found["lacking"] if "user.max_net_namespaces is 0" in each["found"]]
    assert mends == ["sudo sysctl -w user.max_net_namespaces=65536"]
    assert_no_trace(answer)


@pytest.mark.essential
def test_no_user_namespaces(host: Host) -> None:
    answer = host(
        PLAIN,
        enter=AS_ROOT_OF_ITS_OWN,
        prepare="echo 0 > /proc/sys/user/max_user_namespaces",
        before="setpriv --bounding-set=-sys_admin,-net_admin",
    )
    assert_refused(
        answer, "user.max_user_namespaces is 0", "mend it with: sudo sysctl -w user.max_user_namespaces=65536"
    )


@pytest.mark.essential
def test_namespaces_run_out_in_the_middle_of_building(host: Host) -> None:
    answer = host(
        "nodes: {a: {count: 5}}\n", enter=AS_ROOT_OF_ITS_OWN, prepare="echo 3 > /proc/sys/user/max_net_namespaces"
    )
    assert_refused(answer, "node a-", "sudo sysctl -w user.max_net_namespaces=65536")


@root_only
def test_open_files_run_out_in_the_middle_of_building(host: Host) -> None:
    answer = host("nodes: {a: {count: 40}}\n", before="prlimit --nofile=64:64")
    assert_refused(answer, "node a-", "Too many open files", "sudo prlimit --pid $$ --nofile=65536:65536")


@root_only
@pytest.mark.parametrize("user", ["", NOBODY], ids=["root", "nobody"])
def test_a_sandbox_refuses_user_namespaces_to_who_needs_one(host: Host, user: str) -> None:
    answer = host(PLAIN, "-q", before=f"{refusing('unshare', 'EPERM', '0=0x10000000')} {user}")
    if user:
        assert_refused(answer, "user namespaces: refused by a seccomp filter", "--security-opt seccomp=unconfined")
    else:
        assert answer.code == ExitCode.OK, answer


@root_only
def test_a_sandbox_refuses_every_namespace(host: Host) -> None:
    answer = host(PLAIN, before=refusing("unshare", "EPERM"))
    assert_refused(answer, "namespaces: ", "Operation not permitted", "mend it with: docker run --cap-add SYS_ADMIN")


@root_only
def test_a_sandbox_only_pretends(host: Host) -> None:
    answer = host(PLAIN, before=refusing("unshare", "PRETEND"))
    assert_refused(answer, "says that it made new namespaces, but did not")


@root_only
def test_no_mounts(host: Host) -> None:
    assert_refused(host(PLAIN, before=refusing("mount", "EPERM")), "mount none: Operation not permitted (/)")


@root_only
def test_no_host_names(host: Host) -> None:
    assert_refused(host(PLAIN, before=refusing("sethostname", "EPERM")), "node a: Operation not permitted")


@root_only
def test_a_covered_proc_stops_an_ordinary_user_only(host: Host) -> None:
    covered = "mount -t tmpfs none /proc/fs"
    assert_refused(host(PLAIN, prepare=covered, before=NOBODY), "procfs: refused", "covered by mounts: /proc/fs")
    assert host(PLAIN, "-q", prepare=covered).code == ExitCode.OK


@root_only
@pytest.mark.parametrize("cover", ["mount -t tmpfs none /sys/kernel", "mount -o remount,bind,ro /sys"])
def test_a_sys_that_cannot_be_had_is_done_without(host: Host, cover: str) -> None:
    """As containers arrange it; `lab doctor` calls it limited."""
    answer = host(PLAIN, "-q", prepare=cover, before=NOBODY)
    assert answer.code == ExitCode.OK, answer


WITHOUT_NFT = "mount --bind /dev/null $(readlink -f $(command -v nft))"


@root_only
def test_no_nft_matters_to_who_needs_it(host: Host) -> None:
    assert_refused(host(WITH_NAT, prepare=WITHOUT_NFT), "nft is missing", "sudo apt-get install nftables")
    assert host(PLAIN, "-q", prepare=WITHOUT_NFT).code == ExitCode.OK


@root_only
def test_a_kernel_without_nftables(host: Host) -> None:
    answer = host(
        WITH_NAT, before=refusing("socket", "EPROTONOSUPPORT", "0=16", "2=12")
    )  # AF_NETLINK, NETLINK_NETFILTER
    assert_refused(answer, "node router: nft refused its ruleset", "mend it with: sudo modprobe -a nf_tables")


@root_only
def test_an_nft_that_fails_without_a_word(host: Host) -> None:
    answer = host(WITH_NAT, prepare="mount --bind /bin/false $(readlink -f $(command -v nft))")
    assert_refused(answer, "nft refused its ruleset: exit status 1")


@pytest.mark.essential
def test_a_program_that_is_not_installed(host: Host) -> None:
    answer = host("nodes: {a: {services: {x: {run: no-such-program -x}}}}\n", enter=AS_ROOT_OF_ITS_OWN)
    assert_refused(answer, "service a/x: no program 'no-such-program' on this host; install it")


@root_only
def test_a_user_that_does_not_exist(host: Host) -> None:
    answer = host("nodes: {a: {services: {x: {run: sleep 60, user: nosuchuser}}}}\n")
    assert_refused(answer, "service a/x: no user 'nosuchuser' on this host", "sudo useradd --system nosuchuser")


NO_RANGES = "mount --bind /dev/null /etc/subuid; mount --bind /dev/null /etc/subgid"
RANGES = """
mount -t tmpfs none /mnt
echo nobody:700000:65536 > /mnt/ranges
mount --bind /mnt/ranges /etc/subuid
mount --bind /mnt/ranges /etc/subgid
"""


@root_only
def test_services_that_change_user_need_subordinate_ids(host: Host) -> None:
    answer = host(WITH_SSHD, prepare=NO_RANGES, before=NOBODY)
    assert_refused(
        answer,
        "nas/ssh, pi/web: these services change user, but this user has a single id to give",
        'echo "nobody:100000:65536" | sudo tee -a /etc/subuid /etc/subgid',
        "lab up --no-services",
    )
    assert host(WITH_SSHD, "-q", "--no-services", prepare=NO_RANGES, before=NOBODY).code == ExitCode.OK
    assert host(PLAIN, "-q", prepare=NO_RANGES, before=NOBODY).code == ExitCode.OK


@root_only
def test_subordinate_ids_are_of_no_use_where_setuid_has_no_effect(host: Host) -> None:
    sandboxed = f"{NOBODY} --no-new-privs"
    answer = host(WITH_SSHD, prepare=RANGES, before=sandboxed)
    assert_refused(answer, "nas/ssh, pi/web: these services change user", "no_new_privs is set on this process")
    assert host(PLAIN, "-q", prepare=RANGES, before=sandboxed).code == ExitCode.OK


@root_only
def test_subordinate_ids_that_the_mappers_refuse(host: Host) -> None:
    prepare = f"{RANGES}\ncp $(command -v newuidmap) /mnt/m; mount --bind /mnt/m $(command -v newuidmap)"
    answer = host(PLAIN, prepare=prepare, before=NOBODY)
    assert_refused(answer, "newuidmap or newgidmap refused the ranges", "must be setuid root")


@pytest.mark.essential
def test_wrong_input_is_not_the_hosts_fault_and_leaves_no_trace(host: Host) -> None:
    answer = host("nodes: {a: {links: {nowhere: auto}}}\n", enter=AS_ROOT_OF_ITS_OWN)
    assert answer.code == ExitCode.WRONG_INPUT
    assert "no network 'nowhere'" in answer.errors
    assert_no_trace(answer)


@pytest.mark.essential
@pytest.mark.parametrize("keep", [False, True])
def test_a_service_that_fails_says_its_last_words_and_leaves_a_trace_only_if_kept(host: Host, *, keep: bool) -> None:
    topology = 'nodes: {a: {services: {x: {run: [sh, -c, "echo last words; exit 3"], ready: {tcp: 80}}}}}\n'
    answer = host(topology, *(["--keep"] if keep else []), enter=AS_ROOT_OF_ITS_OWN)
    assert answer.code == ExitCode.FAILED
    assert "service a/x ended with exit code 3 before it was ready; the last lines of its log:\n    last words" in (
        answer.errors
    )
    assert "Traceback" not in answer.errors
    if keep:
        assert answer.doors
    else:
        assert_no_trace(answer)
