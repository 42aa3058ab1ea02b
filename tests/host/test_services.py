"""Programs that are not installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lab.host import Status, required
from lab.host.services import PROGRAMS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="prepares the host as root")


def test_programs_not_installed(host: Any) -> None:
    names = " ".join(program.name for program in PROGRAMS)
    prepare = f"""
        for name in {names}; do
            program=$(command -v $name) || continue
            mount --bind /dev/null $(readlink -f $program)
        done
    """
    examined = host.examine(prepare=prepare)
    assert PROGRAMS
    for program in PROGRAMS:
        assert examined[program.name].status is Status.MISSING
        assert examined[program.name].mend == f"sudo apt-get install {program.package}"
    assert "nginx is not installed" in examined["nginx stream module"].found
    assert required(examined.values()) == []


def test_each_program_is_judged_by_itself(host: Any) -> None:
    examined = host.examine(prepare="mount --bind /dev/null $(readlink -f $(command -v curl))")
    missing = [program.name for program in PROGRAMS if examined[program.name].status is Status.MISSING]
    assert missing == ["curl"]


def test_nginx_without_its_stream_module(host: Any) -> None:
    stream = host.examine(prepare="mount -t tmpfs none /usr/lib/nginx/modules")["nginx stream module"]
    assert stream.status is Status.MISSING
    assert "ngx_stream_module.so does not exist" in stream.found
    assert stream.mend == "sudo apt-get install nginx libnginx-mod-stream"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ("--with-stream --with-stream_ssl_preread_module", Status.OK),
        ("--with-stream", Status.MISSING),
        ("--with-stream_ssl_preread_module", Status.MISSING),
        ("--with-stream=dynamic --with-stream_ssl_preread_module --modules-path=/nowhere", Status.MISSING),
    ],
)
def test_other_builds_of_nginx(host: Any, tmp_path: Path, options: str, status: Status) -> None:
    nginx = tmp_path / "nginx"
    nginx.write_text(f'#!/bin/sh\necho "configure arguments: {options}" >&2\n')
    nginx.chmod(0o755)
    assert host.examine(before=f"env PATH={tmp_path}:$PATH")["nginx stream module"].status is status
