"""Carry out a plan: every step but impairments of links and services, which come once all the rest exists."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from lab.errors import HostError, RealiseError
from lab.plan.step import (
    AddAddress,
    AddRoute,
    ConnectToSwitch,
    CreateCertificates,
    CreateMeshKeys,
    CreateNode,
    CreateSshKeys,
    CreateSwitch,
    ImpairLink,
    LoadRuleset,
    Plan,
    ScheduleLink,
    SetInEveryNode,
    SetSysctls,
    ShareFile,
    StartService,
    Step,
)
from lab.realise.nodes import FABRIC, Nodes
from lab.realise.process import Command, start, wait

Progress = Callable[[str, int, int], None]
KeyStep = CreateSshKeys | CreateCertificates | CreateMeshKeys

_LONGEST_LOAD = 10.0  # seconds for a ruleset; the whole lab waits for it
_LOADS_A_SECOND = 10.0  # that the slowest host does

_PHASES: dict[type[Step], str] = {
    ShareFile: "names",
    SetInEveryNode: "nodes",
    CreateNode: "nodes",
    CreateSwitch: "links",
    ConnectToSwitch: "links",
    SetSysctls: "settings",
    AddAddress: "addresses",
    AddRoute: "routes",
    LoadRuleset: "rulesets",
    ImpairLink: "impairments",
    ScheduleLink: "impairments",
    CreateSshKeys: "keys",
    CreateCertificates: "keys",
    CreateMeshKeys: "keys",
    StartService: "services",
}

_LOADERS = {
    "nft": ("nft", "-f", "-"),
    "iptables-restore": ("iptables-restore",),
    "ip6tables-restore": ("ip6tables-restore",),
}


@dataclass(slots=True)
class Executor:
    """Does the steps of one plan against the kernel."""

    nodes: Nodes
    progress: Progress
    _files: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    def build(self, plan: Plan) -> None:
        """Do every step up to the services, in order; the first failure ends it.

        Raises:
            HostError: the kernel refused what the lab cannot do without: a namespace, a mount, a ruleset.
            RealiseError: a step failed; its text names the step and the cause. Nothing is undone here: the lab ends
                with its supervisor.
        """
        for step in plan.steps:
            if isinstance(step, CreateNode):
                self.nodes.filesystem.make_node_folders(step.node)
        key_maker = self._make_keys([s for s in plan.steps if isinstance(s, KeyStep)])
        for phase, group in groupby(plan.steps, key=lambda step: _PHASES[type(step)]):
            steps = list(group)
            self.progress(phase, 0, len(steps))
            self._do(phase, steps)
            self.progress(phase, len(steps), len(steps))
        self.nodes.close_requests()
        if key_maker is not None:
            _await_child(key_maker, "create keys")

    def _do(self, phase: str, steps: list[Step]) -> None:
        if phase == "rulesets":
            rulesets = [step for step in steps if isinstance(step, LoadRuleset)]
            for _, of_one_program in groupby(rulesets, key=lambda step: step.program):
                self._load_rulesets(list(of_one_program))
            return
        for step in steps:
            self._do_step(step)
        if phase == "nodes":
            self.nodes.return_home()
        self.nodes.send_requests()
        if phase == "links":
            for step in steps:
                self._turn_on_far_end(step)
            self.nodes.send_requests()

    def _do_step(self, step: Step) -> None:
        match step:
            case ShareFile():
                path = self.nodes.filesystem.add_shared_file(step.text)
                for node in step.nodes:
                    self._files[node].append((path, step.path))
            case SetInEveryNode():
                self.nodes.sysctls_of_every_node = step.sysctls
            case CreateNode():
                self.nodes.create(step, self._files[step.node])
            case CreateSwitch():
                self.nodes.requests_of(FABRIC).create_switch(step)
            case ConnectToSwitch():
                self.nodes.requests_of(FABRIC).connect_to_switch(step, self.nodes.place(step.node).network)
            case SetSysctls():
                self.nodes.set_sysctls(step)
            case AddAddress():
                self.nodes.requests_of(step.node).add_address(step)
            case AddRoute():
                self.nodes.requests_of(step.node).add_route(step)
            case LoadRuleset() | CreateSshKeys() | CreateCertificates() | CreateMeshKeys():
                pass
            case ImpairLink() | ScheduleLink() | StartService():
                pass  # of the running lab's own parts

    def _turn_on_far_end(self, step: Step) -> None:
        if isinstance(step, ConnectToSwitch):
            self.nodes.requests_of(step.node).turn_on(step.index, step.describe())

    def _load_rulesets(self, steps: list[LoadRuleset]) -> None:
        """Run one program in every node at once; each loads its ruleset wholly or not at all (nft(8), --file).

        All have ended when this does, also after a failure: whoever takes back what they did must be the last.
        """
        running: list[tuple[LoadRuleset, int, int]] = []
        with contextlib.ExitStack() as stack:
            deadline = time.monotonic() + _LONGEST_LOAD + len(steps) / _LOADS_A_SECOND
            try:
                for step in steps:
                    text, said = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("ruleset", "said"))
                    stack.callback(os.close, text)
                    stack.callback(os.close, said)
                    os.write(text, step.text.encode())
                    os.lseek(text, 0, os.SEEK_SET)
                    command = Command(_LOADERS[step.program])
                    running.append((step, start(self.nodes.place(step.node), command, (text, said, said)), said))
            finally:
                codes = [wait(pid, deadline - time.monotonic()) for _, pid, _ in running]
            for (step, _, said), code in zip(running, codes, strict=True):
                if code != 0:
                    raise HostError(
                        f"node {step.node}: {step.program} refused its ruleset: {_why(code, said)}\n{step.text}"
                    )

    def _make_keys(self, steps: list[KeyStep]) -> int | None:
        """Make keys beside the building, in a child, for it takes about as long."""
        if not steps:
            return None
        filesystem = self.nodes.filesystem
        pid = os.fork()
        if pid:
            return pid
        try:
            from lab.realise import keys, mesh_keys

            for step in steps:
                match step:
                    case CreateSshKeys():
                        keys.create_ssh_keys(step, filesystem)
                    case CreateCertificates():
                        keys.create_certificates(step, filesystem)
                    case CreateMeshKeys():
                        mesh_keys.create_mesh_keys(step, filesystem)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
            Path("/run/keys-failed").write_text(repr(error))
            os._exit(1)


def _why(code: int | None, said: int) -> str:
    complaint = os.pread(said, os.fstat(said).st_size, 0).decode(errors="replace").strip()
    return complaint or (f"exit status {code}" if code is not None else "it did not end in time")


def _await_child(pid: int, what: str) -> None:
    _, status = os.waitpid(pid, 0)
    if status:
        failed = Path("/run/keys-failed")
        raise RealiseError(f"{what}: {failed.read_text() if failed.exists() else f'ended with status {status}'}")
