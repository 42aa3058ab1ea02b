"""A lab's beginning and end: names, neighbours with the same addresses, kill -9, other users; nothing is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import RealiseError, TopologyError, UsageError
from lab.realise import registry
from lab.realise.asking import wait_until
from lab.realise.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = """
#   a -- lan -- b
networks: {lan: {prefixes: [192.0.2.0/24]}}
nodes:
  a: {links: {lan: auto}, services: {sleeper: {run: "sleep MARK"}}}
  b: {role: router, links: {lan: auto}, nat: {outside: lan}, firewall: {input: accept}}
"""


def marked(mark: str) -> str:
    return TOPOLOGY.replace("MARK", mark)


@pytest.fixture
def mark() -> str:
    """A length of sleep by which the processes of one test are known."""
    return f"1{os.getpid()}.{int.from_bytes(os.urandom(4))}"


def with_mark(mark: str) -> list[int]:
    """Processes of this host with the mark among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def namespaces_in_use() -> set[str]:
    """Every network and mount namespace that some visible process is in."""
    found = set()
    for entry in Path("/proc").iterdir():
        for kind in ("net", "mnt"):
            try:
                found.add(str((entry / "ns" / kind).readlink()))
            except OSError:
                continue
    return found


def namespaces_of(pid: int) -> set[str]:
    return {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in ("net", "mnt")}


def interfaces_and_mounts() -> set[str]:
    """Of the host."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {entry.name for entry in Path("/sys/class/net").iterdir()} | set(mounts)


@pytest.mark.essential
@pytest.mark.single_id
def test_down_ends_every_process_and_frees_the_name(up: Callable[..., Lab], mark: str) -> None:
    lab = up(marked(mark))
    assert len(with_mark(mark)) == 1
    assert lab.name in registry.names()
    lab.down()
    assert with_mark(mark) == []
    assert lab.name not in registry.names()
    lab.down()  # once more is no error


@pytest.mark.essential
@pytest.mark.single_id
def test_a_killed_supervisor_leaves_nothing(up: Callable[..., Lab], mark: str) -> None:
    """Interfaces and mounts that others make on the host meanwhile spoil a try, not all."""
    left = killed(up, mark)
    for _ in range(2):
        left = left and killed(up, mark)
    assert left == set()


def killed(up: Callable[..., Lab], mark: str) -> set[str]:
    """The interfaces and mounts of the host that are new after a lab whose supervisor was killed; all else is gone."""
    before = interfaces_and_mounts()
    lab = up(marked(mark))
    (sleeper,) = with_mark(mark)
    spaces = namespaces_of(sleeper) | namespaces_of(registry.supervisor_of(lab._channel))
    assert spaces & namespaces_in_use() == spaces
    listening = lab["b"].listen(80)
    os.kill(registry.supervisor_of(lab._channel), signal.SIGKILL)
    used = set(spaces)

    def are_gone() -> bool:
        """Each once: its number may be that of another lab's soon."""
        used.intersection_update(namespaces_in_use())
        return not used

    wait_until(are_gone, 30, "its namespaces are gone")
    wait_until(lambda: not with_mark(mark), 30, "its processes are gone")
    wait_until(lambda: lab.name not in registry.names(), 30, "its name is free")
    listening.close()
    left = interfaces_and_mounts() - before
    with pytest.raises((OSError, RealiseError)):
        lab.services()
    lab.down()  # ending one that has ended is no error
    assert lab._channel.fileno() == -1, "an open socket would be a warning in some other test"
    return left


@pytest.mark.root
@pytest.mark.parametrize("kernel", ["new", "old"])
def test_down_does_not_wait_for_whoever_has_the_supervisors_number_now(tmp_path: Path, kernel: str) -> None:
    (tmp_path / "t.yaml").write_text(marked("1000"))
    script = str(Path(__file__).with_name("reused_number.py"))
    unshared = ["unshare", "--fork", "--pid", "--mount-proc", sys.executable, script, str(tmp_path / "t.yaml"), kernel]
    done = subprocess.run(unshared, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stranger"] == found["supervisor"], "it has another number, so this proves nothing"
    assert found["is_alive"]


@pytest.mark.essential
@pytest.mark.single_id
def test_a_lab_lives_on_after_whoever_started_it(name: str, tmp_path: Path, mark: str) -> None:
    (tmp_path / "t.yaml").write_text(marked(mark))
    file = str(tmp_path / "t.yaml")
    code = f"from pathlib import Path; from lab.realise.launch import up; up(Path({file!r}), name={name!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with Lab(name) as lab:
        assert lab["a"].run(["hostname"]).stdout == "a\n"
        assert len(with_mark(mark)) == 1
    assert with_mark(mark) == []


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_is_ended_while_starting_a_lab_leaves_none(
    name: str, tmp_path: Path, mark: str, number: signal.Signals
) -> None:
    never_ready = marked(mark).replace(f'"sleep {mark}"', f'"sleep {mark}", ready: {{tcp: 1, timeout: 60s}}')
    (tmp_path / "t.yaml").write_text(never_ready)
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path; from lab.realise.launch import up\n"
        f"up(Path({str(tmp_path / 't.yaml')!r}), name={name!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL) as starter:
        wait_until(lambda: with_mark(mark), 60, "its service runs")
        starter.send_signal(number)
        assert starter.wait(60) != 0
    wait_until(lambda: not with_mark(mark), 30, "its processes are gone")
    wait_until(lambda: name not in registry.names(), 30, "its name is free")


@pytest.mark.essential
@pytest.mark.single_id
def test_two_labs_with_the_same_addresses_live_side_by_side(up: Callable[..., Lab]) -> None:
    labs = [up(marked("1000")), up(marked("1000"))]
    servers = [lab["b"].udp(5000) for lab in labs]
    for number, lab in enumerate(labs):
        with lab["a"].udp() as client:
            client.sendto(b"%d" % number, (lab["b"].address(), 5000))
    assert labs[0]["b"].address() == labs[1]["b"].address()
    for number, server in enumerate(servers):
        assert server.recv(10) == b"%d" % number
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.recv(10)
        server.close()
    labs[0].down()
    assert labs[1]["a"].run(["ping", "-c", "1", "-w", "20", "b"]).returncode == 0


@pytest.mark.essential
@pytest.mark.single_id
def test_a_second_lab_of_one_name_is_refused_and_the_first_lives_on(up: Callable[..., Lab], name: str) -> None:
    first = up(marked("1000"), name=name)
    with pytest.raises(UsageError, match=f"a lab named '{name}' is already up: `lab down {name}` ends it"):
        up(marked("1000"), name=name)
    assert first["a"].run(["true"]).returncode == 0


@pytest.mark.essential
@pytest.mark.single_id
def test_a_lab_that_is_not_up_is_named_with_those_that_are(up: Callable[..., Lab]) -> None:
    running = up(marked("1000")).name
    with pytest.raises(UsageError, match=rf"no lab named 'nowhere' is up; running: .*\b{running}\b"):
        Lab("nowhere")


@pytest.mark.essential
@pytest.mark.single_id
def test_whoever_asks_a_lab_that_has_ended_is_told_so(up: Callable[..., Lab]) -> None:
    lab = up(marked("1000"))
    other = Lab(lab.name)
    lab.down()
    for _ in range(2):  # at first there is an end to read, then nobody to send to
        with pytest.raises(RealiseError, match="the lab has ended"):
            other.ask({"ask": "inspect"})
    other.close()


@pytest.mark.essential
@pytest.mark.single_id
def test_a_faulty_topology_starts_nothing(up: Callable[..., Lab], name: str) -> None:
    with pytest.raises(TopologyError, match="nodes"):
        up("nodes: {a: {links: {nowhere: auto}}}", name=name)
    assert name not in registry.names()


@pytest.mark.essential
@pytest.mark.single_id
def test_a_lab_that_fails_leaves_no_process(up: Callable[..., Lab], mark: str) -> None:
    failing = marked(mark).replace("b: {role", "c: {sysctls: {net.ipv4.no_such: 1}, links: {lan: auto}}\n  b: {role")
    with pytest.raises(RealiseError, match="no_such"):
        up(failing)
    assert with_mark(mark) == []


@pytest.mark.essential
@pytest.mark.single_id
def test_a_supervisor_that_dies_before_it_reads_its_order_leaves_its_last_words(
    up: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nsleep 1\necho no such module >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(RealiseError, match="the supervisor ended without a word:\nno such module"):
        up(marked("1000"))


@pytest.mark.essential
@pytest.mark.single_id
def test_letting_go_of_a_lab_leaves_it_alone(up: Callable[..., Lab]) -> None:
    lab = up(marked("1000"))
    Lab(lab.name).close()
    assert lab["a"].run(["true"]).returncode == 0


@pytest.mark.essential
@pytest.mark.single_id
def test_a_lab_that_is_held_ends_with_its_holder_unless_let_go_before(up: Callable[..., Lab], mark: str) -> None:
    lab = up(marked(mark))
    holder = Lab(lab.name)
    holder.hold()
    holder.hold(hold=False)
    holder.close()
    assert lab["a"].run(["true"]).returncode == 0
    holder = Lab(lab.name)
    holder.hold()
    holder.close()
    wait_until(lambda: not with_mark(mark), 30, "its processes are gone")
    wait_until(lambda: lab.name not in registry.names(), 30, "its name is free")


@pytest.mark.essential
@pytest.mark.single_id
def test_a_container_is_refused_with_a_reason(up: Callable[..., Lab]) -> None:
    with pytest.raises(UsageError, match=r"node a: containers .* are not realised by this version"):
        up(
            {
                "networks": {"lan": {"prefixes": ["192.0.2.0/24"]}},
                "nodes": {"a": {"image": "x/y:1", "links": {"lan": "auto"}}},
            }
        )


@pytest.mark.root
def test_another_user_cannot_talk_to_a_lab(up: Callable[..., Lab]) -> None:
    """The name lies in the abstract namespace, where anyone may knock; the supervisor hangs up on strangers."""
    lab = up(marked("1000"))
    address = f"\\0homelab-lab/{os.geteuid()}/{lab.name}"
    code = (
        f"import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('{address}')\n"
        "s.settimeout(30)\n"
        'try: s.send(b\'p{"ask": "inspect"}\')\n'
        "except BrokenPipeError: pass\n"
        "print(s.recv(1000))"
    )
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for who, answer in ((stranger, ("b''",)), ([], ("b'p{",))):
        done = subprocess.run(
            [*who, "/usr/bin/python3", "-c", code], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.stdout.startswith(answer) or (who and "ConnectionResetError" in done.stderr), done


@pytest.mark.essential
@pytest.mark.single_id
def test_only_the_owners_lab_is_believed(name: str) -> None:
    """Whoever binds the name without being a lab is not one: no answer is no lab."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with door:
        door.bind(f"\0homelab-lab/{os.geteuid()}/{name}")
        with pytest.raises(UsageError):  # bound, but nobody listens
            Lab(name)
