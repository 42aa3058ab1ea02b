"""A real systemd as process 1 of a small system in a node of a lab, with its own processes, files, cgroup and network.

Nothing of the host is changed: of its files only /usr is seen, read-only, as are /sys and /proc/sys; the rest is in
memory, and the cgroup is one that was made for it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.realise.asking import wait_until
from lab.realise.node import Node
from tests.proxy.running import DEADLINE

SYSTEMD = "/usr/lib/systemd/systemd"
# What a boot takes, of the host's own units; whatever else the host has is not there.
UNITS = """
basic.target sysinit.target multi-user.target network.target network-online.target nss-lookup.target
sockets.target slices.target shutdown.target umount.target final.target exit.target systemd-exit.service
systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
"""
BOOT = """
[Unit]
Requires=basic.target systemd-journald.service
After=basic.target systemd-journald.service
AllowIsolate=yes
"""
CGROUP = """
set -eu
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$1"
cd "$1$(sed -n 's/^0:://p' /proc/self/cgroup)"
"""
ENTER = (
    CGROUP
    + """
mkdir "$2"
echo $$ >"$2/cgroup.procs"
exec unshare --cgroup --mount --pid --uts --ipc --fork --kill-child sh "$3" "$1"
"""
)
LEAVE = CGROUP + '[ ! -d "$2" ] || find "$2" -depth -type d -exec rmdir {} +\n'
# A file system from nothing, then systemd in it, which may not touch the host's clock, modules or log.
START = """
set -eu
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
mkdir -p dev etc/systemd/system old proc root run sys tmp usr var/lib var/log/journal var/tmp
chmod 1777 tmp var/tmp
for name in bin lib lib64 sbin; do ln -s usr/$name $name; done
ln -s ../run var/run
mount --bind /usr usr
mount -o remount,bind,ro usr
mount -t tmpfs -o mode=755 tmpfs usr/local
mkdir usr/local/bin
for name in group ld.so.cache nsswitch.conf passwd; do cp /etc/$name etc/; done
echo 127.0.0.1 localhost >etc/hosts
: >etc/resolv.conf
: >etc/os-release
echo 0123456789abcdef0123456789abcdef >etc/machine-id
mkdir usr/local/units
for name in $UNITS; do ln -s /usr/lib/systemd/system/$name usr/local/units/; done
echo "$BOOT" >usr/local/units/boot.target
mount -t tmpfs -o mode=755 tmpfs run
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for name in full null random tty urandom zero; do : >dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
ln -s /proc/self/fd dev/fd
pivot_root . old
umount -l old
rmdir old
# As nspawn does: credentials of a service are mounted by a child of systemd that has a namespace of its own.
mount --make-rshared /
exec env -i container=lab SYSTEMD_UNIT_PATH=/etc/systemd/system:/usr/local/units PATH=/usr/sbin:/usr/bin \\
    setpriv --bounding-set -sys_boot,-sys_module,-sys_rawio,-sys_time,-syslog \\
    $SYSTEMD --unit=boot.target --show-status=false --log-target=journal
"""


class Booted:
    """A system that runs."""

    def __init__(self, node: Node, init: str) -> None:
        self.node, self._init = node, init

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A line of the shell, as root of that system."""
        words = ["nsenter", "--target", self._init, "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        done = self.node.run([*words, "env", "-i", path, "sh", "-c", f"cd /root\n{command}"], timeout=DEADLINE)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr, self.journal())
        return done

    def put(self, path: str, content: Path | str) -> None:
        """A file in it: of this content, or as a copy of another with its mode."""
        place = f"/proc/{self._init}/root{path}"
        if isinstance(content, Path):
            self.node.run(["cp", str(content), place], check=True)
        else:
            self.node.run(["tee", place], input=content, check=True)

    def state(self, unit: str) -> dict[str, str]:
        """`systemctl show`."""
        return dict(
            line.split("=", 1) for line in self.run(f"systemctl show {unit}").stdout.splitlines() if "=" in line
        )

    def wait_for(self, unit: str, **wanted: str) -> dict[str, str]:
        """Its state, once it has these values."""
        found: dict[str, str] = {}

        def look() -> bool:
            found.update(self.state(unit))
            return all(found[key] == value for key, value in wanted.items())

        try:
            wait_until(look, DEADLINE, f"{unit}: {wanted}")
        except TimeoutError as error:
            raise AssertionError({key: found[key] for key in wanted}, self.journal()) from error
        return found

    def lines(self, unit: str) -> list[dict[str, Any]]:
        """The journal's entries of a unit, those of the service manager among them."""
        shown = self.run(f"journalctl --unit {unit} --output json --no-pager").stdout
        return [json.loads(line) for line in shown.splitlines()]

    def journal(self) -> str:
        """All that the system has said."""
        return self.run("journalctl --no-pager --quiet", check=False).stdout


@contextmanager
def booted(node: Node, folder: Path) -> Iterator[Booted]:
    """A system that has booted; `folder` is one that the node sees."""
    if not Path(SYSTEMD).exists() or not Path("/lib").is_symlink():
        pytest.skip("systemd is not installed here, or not in a merged /usr")
    mine, root, cgroup = folder / "cgroup", folder / "root", f"lab-{os.getpid()}-{folder.name}"
    for name, text in (("enter", ENTER), ("start", START), ("leave", LEAVE)):
        (folder / name).write_text(text)
    mine.mkdir()
    root.mkdir()
    try_it = f'{CGROUP}mkdir "$2"\nrmdir "$2"\n'
    tried = node.run(["unshare", "--mount", "sh", "-c", try_it, "sh", str(mine), cgroup])
    if tried.returncode != 0:
        pytest.skip(f"no cgroup can be made for a systemd here: {tried.stderr.strip()}")
    environment = {"UNITS": " ".join(UNITS.split()), "BOOT": BOOT, "SYSTEMD": SYSTEMD}
    words = ["unshare", "--mount", "sh", str(folder / "enter"), str(mine), cgroup, str(folder / "start")]
    said = folder / "boot"
    try:
        with said.open("w") as stderr, node.start(words, env=environment, stdout=stderr, stderr=stderr) as process:

            def init() -> str:
                found = node.run(["pgrep", "--parent", str(process.pid), "--full", SYSTEMD]).stdout.split()
                return found[0] if found else ""

            wait_until(lambda: bool(init()), DEADLINE, f"systemd: {said.read_text()}")
            system = Booted(node, init())
            _wait_for_boot(system, said)
            yield system
            process.kill()  # and with it all that runs there (unshare --kill-child)
            process.wait(DEADLINE)
    finally:
        leave = ["unshare", "--mount", "sh", str(folder / "leave"), str(mine), cgroup]
        wait_until(lambda: node.run(leave).returncode == 0, DEADLINE, "the end of its cgroup")


def _wait_for_boot(system: Booted, said: Path) -> None:
    """Some unit of the host's may fail in there: what counts is what was asked for."""

    def is_over() -> bool:
        return system.run("systemctl is-system-running", check=False).stdout.strip() in {"running", "degraded"}

    try:
        wait_until(is_over, DEADLINE, "the boot")
        system.run("systemctl is-active boot.target systemd-journald.service")
    except (AssertionError, TimeoutError) as error:
        failed = system.run("systemctl --failed --no-pager", check=False).stdout
        raise AssertionError(said.read_text(), failed, system.journal()) from error
