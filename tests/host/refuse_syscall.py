"""Runs a program under a seccomp filter that refuses one system call: a host that really lacks what the call asks for.

    python refuse_syscall.py unshare EPERM 0=0x10000000 -- PROGRAM ...

refuses unshare(2) with EPERM if its argument 0 is CLONE_NEWUSER; several conditions must all hold. With PRETEND in
place of an errno the call does nothing and returns success. See seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

NUMBERS = {
    "x86_64": {"socket": 41, "mount": 165, "sethostname": 170, "unshare": 272},
    "aarch64": {"socket": 198, "mount": 40, "sethostname": 161, "unshare": 97},
}
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38


def main(words: list[str]) -> None:
    split = words.index("--")
    call, error, *conditions = words[:split]
    checks = [(0, NUMBERS[os.uname().machine][call])]
    for condition in conditions:
        argument, _, wanted = condition.partition("=")
        checks.append((16 + 8 * int(argument), int(wanted, 0)))
    instructions = []
    left = 2 * len(checks) + 1
    for offset, value in checks:
        instructions.append(struct.pack("=HBBI", LOAD, 0, 0, offset))
        left -= 2
        instructions.append(struct.pack("=HBBI", JUMP_IF_EQUAL, 0, left, value))
    instructions.append(
        struct.pack("=HBBI", RETURN, 0, 0, REFUSE | (0 if error == "PRETEND" else getattr(errno, error)))
    )
    instructions.append(struct.pack("=HBBI", RETURN, 0, 0, ALLOW))
    install(b"".join(instructions), len(instructions))
    os.execvp(words[split + 1], words[split + 1 :])


def install(program: bytes, length: int) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    filter_program = struct.pack("@HP", length, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(MODE_FILTER), filter_program, 0, 0):
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(sys.argv[1:])
