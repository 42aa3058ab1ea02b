"""What a lab's processes see of the host's files: all of them, but for a few folders and files of the lab's own.

Everything lives in one memory file system that belongs to the lab's mount namespace and ends with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lab.errors import HostError
from lab.realise.process import HOME
from lab.syscalls import (
    CLONE_NEWNS,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
    attach_mount,
    clone_mount,
    mount,
    setns,
)

# The lab's memory file system as its supervisor sees it; a node sees its own folder of it as /run.
ROOT = Path("/run")
SHARED = ROOT / "shared"  # written by the supervisor
_SHARED_READ_ONLY = ROOT / "shared-read-only"  # the same, as nodes see it
_NODES = ROOT / "nodes"
# Debian's, Fedora's, Alpine's and SUSE's; those that the host has.
_TRUST_STORES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
    Path("/etc/ssl/ca-bundle.pem"),
)

# Folders of which each node has its own, empty at first, and their modes.
_OWN_FOLDERS = {"/run": 0o755, "/tmp": 0o1777, "/var/tmp": 0o1777, "/var/log": 0o755}
# State that servers write wherever they run (nginx its temporary folders, dnsmasq its leases), where the host has them.
_OWN_FOLDERS |= {folder: 0o755 for folder in ("/var/lib/nginx", "/var/lib/misc") if Path(folder).is_dir()}
# Within a node's /run. sshd refuses to start without its folder there (sshd(8), FILES).
_SKELETON = {
    "lab": 0o755,
    "lab/home": 0o755,
    "lab/home/.ssh": 0o700,
    "lab/services": 0o755,
    "lab/log": 0o755,
    "lab/ssh": 0o755,
    "lock": 0o1777,
    "sshd": 0o755,
}
_SHARE_OF_MEMORY = "25%"


@dataclass(slots=True)
class Filesystem:
    """The lab's files: made once by its supervisor, then once for each node."""

    keep: tuple[str, ...]  # folders of the host that nodes must see even below a folder of their own
    protect_kernel: bool  # the lab's root is the host's root, whom the kernel lets change the host's settings
    _shared_files: int = 0
    _own_files: dict[tuple[str, str], Path] = field(default_factory=dict)  # (node, path): where it is written

    def prepare(self) -> None:
        """Make the lab's own mounts in the supervisor's fresh mount namespace.

        Raises:
            OSError: the kernel refuses a mount, as some containers arrange; the error names the target.
        """
        # What the host unmounts goes here too; nothing goes the other way.
        mount("none", "/", "", MS_REC | MS_SLAVE)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        if self.protect_kernel:
            _protect_kernel()
        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
        self._mount_terminals()
        with _held(self.keep, str(ROOT)) as held:
            mount("tmpfs", str(ROOT), "tmpfs", MS_NOSUID | MS_NODEV, f"mode=755,size={_SHARE_OF_MEMORY}")
            _show_again(held)
        for folder in (SHARED, _SHARED_READ_ONLY, _NODES):
            folder.mkdir()
        mount(str(SHARED), str(_SHARED_READ_ONLY), "", MS_BIND)
        mount("none", str(_SHARED_READ_ONLY), "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
        accounts = _accounts()
        self._share("passwd", Path("/etc/passwd"), "".join(f"{':'.join(fields)}\n" for fields in accounts))
        if Path("/etc/shadow").exists():
            # No node needs the host's passwords; sshd takes an account for locked if it cannot read this file.
            self._share("shadow", Path("/etc/shadow"), "".join(f"{fields[0]}:*:::::::\n" for fields in accounts))
        for number, store in enumerate({store.resolve() for store in _TRUST_STORES if store.exists()}):
            self._share(f"trust{number}.pem", store, store.read_text(errors="replace"))

    def node_folder(self, node: str, path: str) -> Path:
        """Where the supervisor finds what the node calls `path`, which lies below one of the node's own folders."""
        for folder in _OWN_FOLDERS:
            if path == folder or path.startswith(f"{folder}/"):
                return Path(f"{_NODES}/{node}{_flat(folder)}{path[len(folder) :]}")
        raise ValueError(f"{path} is not among {', '.join(_OWN_FOLDERS)}")

    def add_shared_file(self, text: str) -> str:
        """Keep a file for several nodes; returns the path to give to `prepare_node`."""
        self._shared_files += 1
        name = f"file{self._shared_files}"
        (SHARED / name).write_text(text)
        return str(_SHARED_READ_ONLY / name)

    def own_file(self, node: str, mounts: int, path: str, text: str) -> None:
        """Give a node of its own what it shared with others at `path`, or write that anew; come home after this.

        Args:
            node: its name.
            mounts: a descriptor of its mount namespace.
            path: as the node sees it.
            text: the new content.

        Raises:
            OSError: the kernel refuses the mount.
        """
        place = (node, path)
        if place not in self._own_files:
            shown = self.add_shared_file(text)
            cloned = clone_mount(shown)
            try:
                setns(mounts, CLONE_NEWNS)
                attach_mount(cloned, _mount_point(path))
            finally:
                os.close(cloned)
            self._own_files[place] = SHARED / Path(shown).name
        else:
            self._own_files[place].write_text(text)

    def trust(self, certificate: str) -> None:
        """Add an authority (PEM) to those that every node trusts."""
        for shared in SHARED.glob("trust*.pem"):
            with shared.open("a") as store:
                store.write(certificate)

    def make_node_folders(self, node: str) -> None:
        """Make the folders of its own that a node will have. Called for all nodes before the first is prepared."""
        # A thousand nodes: no Path objects here.
        os.mkdir(f"{_NODES}/{node}")  # noqa: PTH102
        for folder, mode in _OWN_FOLDERS.items():
            os.mkdir(f"{_NODES}/{node}{_flat(folder)}")  # noqa: PTH102
            os.chmod(f"{_NODES}/{node}{_flat(folder)}", mode)  # noqa: PTH101
        for part, mode in _SKELETON.items():
            os.mkdir(f"{_NODES}/{node}{_flat('/run')}/{part}", mode)  # noqa: PTH102

    def remove_node_folders(self, node: str) -> None:
        """Forget the folders of a node that is gone, with all that is in them."""
        shutil.rmtree(f"{_NODES}/{node}", ignore_errors=True)

    def prepare_node(self, node: str, files: list[tuple[str, str]]) -> None:
        """Show a node its own folders and files in its fresh mount namespace, which this process is in.

        Args:
            node: its name.
            files: pairs of a path from `add_shared_file` and the path that the node shall see it at.
        """
        _mount_sysfs(read_only=self.protect_kernel)
        with contextlib.ExitStack() as stack:
            held_files = []
            for source, target in files:
                held_files.append((os.open(source, os.O_PATH | os.O_CLOEXEC), target))
                stack.callback(os.close, held_files[-1][0])
            # /run last: the lab's own folders lie below it.
            for folder in reversed(_OWN_FOLDERS):
                with _held(self.keep, folder) as held:
                    mount(f"{_NODES}/{node}{_flat(folder)}", folder, "", MS_BIND)
                    _show_again(held)
            for descriptor, target in held_files:
                mount(f"/proc/self/fd/{descriptor}", _mount_point(target), "", MS_BIND)

    def _mount_terminals(self) -> None:
        options = "newinstance,ptmxmode=0666,mode=620"
        mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
        if not Path("/dev/ptmx").is_symlink():
            mount("/dev/pts/ptmx", "/dev/ptmx", "", MS_BIND)

    def _share(self, name: str, target: Path, text: str) -> None:
        (SHARED / name).write_text(text)
        mount(str(_SHARED_READ_ONLY / name), str(target.resolve()), "", MS_BIND)


def _protect_kernel() -> None:
    """Leave nodes their own network settings, and none of the host's: what is not of a namespace is read-only."""
    mount("/proc/sys", "/proc/sys", "", MS_BIND)
    mount("/proc/sys/net", "/proc/sys/net", "", MS_BIND)
    for path in ("/proc/bus", "/proc/irq", "/proc/sysrq-trigger"):
        if os.path.exists(path):  # noqa: PTH110
            mount(path, path, "", MS_BIND)
            mount("none", path, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("none", "/proc/sys", "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _mount_sysfs(*, read_only: bool) -> None:
    """The node's own interfaces in /sys/class/net; where a container refuses that, `lab doctor` tells of it."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (MS_RDONLY if read_only else 0)
    try:
        mount("sysfs", "/sys", "sysfs", flags)
    except PermissionError:
        with contextlib.suppress(PermissionError):
            mount("sysfs", "/sys", "sysfs", flags | MS_RDONLY)


def _accounts() -> list[list[str]]:
    """The host's accounts, but root of a node lives in the node's own folder (ssh finds its keys by this)."""
    accounts = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    for fields in accounts:
        if len(fields) == 7 and fields[2] == "0":
            fields[5] = HOME
    return accounts


def _flat(folder: str) -> str:
    """The name of one of `_OWN_FOLDERS` in a node's folder of the lab's file system, after a slash."""
    return "/" + folder[1:].replace("/", "-")


def _mount_point(path: str) -> str:
    """Where to mount a file over `path`: systemd hosts have /etc/resolv.conf as a link into /run."""
    real = _real_path(path)
    if real.startswith(tuple(f"{folder}/" for folder in _OWN_FOLDERS)) and not os.path.exists(real):  # noqa: PTH110
        Path(real).parent.mkdir(parents=True, exist_ok=True)
        Path(real).touch()
    if not os.path.exists(real):  # noqa: PTH110
        raise HostError(f"{path} leads to {real}, which does not exist, so no node can have its own: sudo touch {real}")
    return real


@cache
def _real_path(path: str) -> str:
    """The same in every node, for they see the host's /etc."""
    return os.path.realpath(path)


@contextlib.contextmanager
def _held(folders: tuple[str, ...], below: str) -> Iterator[list[tuple[str, int]]]:
    """Open descriptors of those of `folders` that lie below a folder about to be covered."""
    wanted = [folder for folder in folders if folder.startswith(f"{below}/")]
    held = [(folder, os.open(folder, os.O_PATH | os.O_CLOEXEC)) for folder in wanted]
    try:
        yield held
    finally:
        for _, descriptor in held:
            os.close(descriptor)


def _show_again(held: list[tuple[str, int]]) -> None:
    for folder, descriptor in held:
        Path(folder).mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", folder, "", MS_BIND | MS_REC)
