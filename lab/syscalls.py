"""The Linux calls that Python 3.11 lacks, each as thin as it can be; all raise OSError."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PUNCH_HOLE = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
# Of all architectures, for the C library has the calls since its version 2.36 only.
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_AT_FDCWD = -100
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move this process into new namespaces; with CLONE_NEWPID, its next child."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move this thread into the namespace behind an open descriptor of the given CLONE_NEW* kind."""
    _check(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2); an error names the target."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(result, f"mount {kind or source}", target)


def clone_mount(path: str) -> int:
    """A mount of one file or folder like that at `path`, attached nowhere; its descriptor (open_tree(2))."""
    result = _libc.syscall(_OPEN_TREE, _AT_FDCWD, path.encode(), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    _check(result, "open_tree", path)
    return int(result)


def attach_mount(mount_descriptor: int, target: str) -> None:
    """Attach it over `target`, in the mount namespace that this process is in by now (move_mount(2))."""
    result = _libc.syscall(_MOVE_MOUNT, mount_descriptor, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
    _check(result, "move_mount", target)


def punch_hole(descriptor: int, begin: int, length: int) -> None:
    """Give a range of a file back to its file system; it reads as zeros from then on (fallocate(2))."""
    _check(_libc.fallocate(descriptor, _PUNCH_HOLE, ctypes.c_long(begin), ctypes.c_long(length)), "fallocate")


def signal_on_parent_death(number: int) -> None:
    """Have a signal sent to this process when its parent ends (PR_SET_PDEATHSIG)."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0), "prctl")


def drop_capabilities(numbers: tuple[int, ...]) -> None:
    """Give up capabilities for good, for this process and all that it starts (capabilities(7))."""
    for number in numbers:
        _check(_libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0), "prctl")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: the lower 32 bits of each, then the upper
    _check(_libc.capget(header, data), "capget")
    for number in numbers:
        for kind in range(3):
            data[number // 32 * 3 + kind] &= ~(1 << number % 32)
    _check(_libc.capset(header, data), "capset")


def _check(result: int, what: str, path: str | None = None) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", path)
