"""Services as written -> as meant: what runs, with which files, when it is ready, after whom."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lab.topology import names
from lab.topology.directory import as_address
from lab.topology.facts import Facts
from lab.topology.faults import Wrong, listed, shown
from lab.topology.model import (
    Port,
    Protocol,
    ReadyCommand,
    ReadyLog,
    ReadyPort,
    Restart,
    Service,
    ServiceFile,
    SshAccess,
)
from lab.topology.service_file import DEFAULT_READY_TIMEOUT, RunFile, ServiceKeys
from lab.topology.service_order import check_order, predecessors
from lab.topology.services.catalogue import CATALOGUE
from lab.topology.services.known import Program, Ready, Setting, SshServer
from lab.topology.services.sshd import SshdFile
from lab.topology.shape import shape
from lab.topology.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.topology.directory import Directory
    from lab.topology.faults import Fault
    from lab.topology.service_file import ReadyFile
    from lab.topology.source import At

CERTIFICATE_FILES = ("cert.pem", "key.pem")

Written = dict[str, ServiceKeys | None]  # of a node, by name; None: its shape has faults, which are noted


def resolve_services(
    lab: str, directory: Directory, of_meshes: Mapping[str, tuple[Service, ...]], faults: list[Fault]
) -> tuple[dict[str, tuple[Service, ...]], tuple[SshAccess, ...]]:
    """The services of every node, those of its meshes first, and who may log in where."""
    shapes: dict[str, Written] = {}  # by the place of the node, which copies share
    written: dict[str, Written] = {}
    for node in directory.nodes.values():
        place = node.at.where(of_key=True)
        if place not in shapes:
            shapes[place] = {name: _shape(name, data, node.at, faults) for name, data in node.written.services.items()}
        written[node.name] = shapes[place]
    ssh = _ssh_servers(written, directory, faults)
    unsure = frozenset(node for node, every in written.items() if None in every.values())
    known = {
        node: {**dict.fromkeys(each.name for each in of_meshes.get(node, ())), **own} for node, own in written.items()
    }
    texts = Texts(faults)
    services: dict[str, tuple[Service, ...]] = {}
    for node in directory.nodes.values():
        found: list[Service] = [*of_meshes.get(node.name, ())]
        for name, keys in written[node.name].items():
            if keys is None:
                continue
            at = node.at / "services" / name
            setting = Setting(name, node, at, directory, Facts(lab, directory, node, name), texts, faults, ssh, unsure)
            service = _service(keys, setting, known)
            if service is not None:
                found.append(service)
        services[node.name] = tuple(found)
    check_order(services, directory, faults)
    return services, tuple(SshAccess(node, server.clients) for node, server in ssh.items())


def _shape(name: str, data: object, node_at: At, faults: list[Fault]) -> ServiceKeys | None:
    at = node_at / "services" / name
    try:
        names.SERVICE.check(name)
    except Wrong as wrong:
        faults.append(at.fault(str(wrong), of_key=True))
    if not isinstance(data, dict):
        faults.append(at.fault(shown(data), "a mapping with `run:` or `use:`"))
        return None
    if ("run" in data) == ("use" in data):
        found = "both `run:` and `use:`" if "run" in data else "neither `run:` nor `use:`"
        faults.append(at.fault(found, "one of them", of_key=True))
        return None
    if "run" in data:
        return shape(RunFile, data, at, faults)
    use = data["use"]
    if not isinstance(use, str) or use not in CATALOGUE:
        found = f"no known service {shown(use)}"
        allowed = f"services: {listed(CATALOGUE)}, or `run:` with any command"
        faults.append((at / "use").fault(found, allowed, near=(str(use), CATALOGUE)))
        return None
    return shape(CATALOGUE[use].written, data, at, faults)


def _ssh_servers(written: dict[str, Written], directory: Directory, faults: list[Fault]) -> dict[str, SshServer]:
    servers: dict[str, SshServer] = {}
    for node, services in written.items():
        for name, keys in services.items():
            if not isinstance(keys, SshdFile):
                continue
            at = directory.nodes[node].at / "services" / name
            if node in servers:
                faults.append(
                    at.fault(f"a second sshd, beside '{servers[node].service}'", "one in a node", of_key=True)
                )
                continue
            clients: list[str] = []
            for index, client in enumerate(keys.authorized):
                clients += directory.members(client, at / "authorized" / index, faults)
            servers[node] = SshServer(name, keys.port, tuple(dict.fromkeys(clients)))
    return servers


def _service(written: ServiceKeys, setting: Setting, every: dict[str, Written]) -> Service | None:
    at, name = setting.at, setting.name
    if isinstance(written, RunFile):
        words = [setting.render(word, at / "run" / index) for index, word in enumerate(written.run)]
        program: Program | None = Program(tuple(words))
    else:
        program = CATALOGUE[str(getattr(written, "use", ""))].program(written, setting)
    files = _files(written, program.files if program is not None else (), setting)
    after = predecessors(written.after, every, setting)
    environment = _environment(written, setting)
    certificate = _certificate(written, setting)
    given = _ready(written.ready, setting) if written.ready is not None else None
    if program is None:
        return None
    ready = program.ready if written.ready is None else given
    return Service(
        name=name,
        argv=program.argv,
        files=files,
        ports=_ports(written, program, ready, setting),
        ready=ready,
        ready_timeout=written.ready.timeout if written.ready is not None else DEFAULT_READY_TIMEOUT,
        restart=Restart(written.restart) if written.restart is not None else program.restart,
        user=written.user,
        environment=environment,
        after=tuple(dict.fromkeys((*program.after, *after))),
        certificate=certificate,
        changes_user=program.changes_user,
    )


def _files(written: ServiceKeys, own: tuple[ServiceFile, ...], setting: Setting) -> tuple[ServiceFile, ...]:
    files = list(own)
    taken = {file.path: "the service's own" for file in own}
    if written.tls:
        taken.update(dict.fromkeys(CERTIFICATE_FILES, "the certificate's"))
    for target, source in written.files.items():
        at = setting.at / "files" / target
        if not _is_inside(target):
            allowed = "a path inside the service's folder, without .."
            setting.faults.append(at.fault(shown(target), allowed, of_key=True))
        elif any(other.startswith(f"{target}/") or target.startswith(f"{other}/") for other in written.files):
            found = f"{shown(target)}, a file and a folder"
            setting.faults.append(at.fault(found, "one or the other", of_key=True))
        if target in taken:
            setting.faults.append(at.fault(f"{shown(target)}, which is {taken[target]}", "another name", of_key=True))
        if source.path is not None:
            text = setting.texts.file(source.path, setting.facts, at)
        else:
            text = setting.render(source.text or "", at / "text")
        if text is not None:
            files.append(ServiceFile(target, text))
    return tuple(files)


def _is_inside(path: str) -> bool:
    parts = path.split("/")
    return path.isprintable() and len(path) <= 255 and not {"", ".", ".."} & set(parts)


def _environment(written: ServiceKeys, setting: Setting) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for name, value in written.env.items():
        at = setting.at / "env" / name
        try:
            names.VARIABLE.check(name)
        except Wrong as wrong:
            setting.faults.append(at.fault(str(wrong), of_key=True))
        found.append((name, setting.render(value, at)))
    return tuple(found)


def _certificate(written: ServiceKeys, setting: Setting) -> tuple[str, ...]:
    found: list[str] = []
    for index, text in enumerate(written.tls):
        at = setting.at / "tls" / index
        name = setting.render(text, at)
        found.append(name)
        if as_address(name) is not None or "{{" in name:
            continue
        try:
            names.HOST.check(name.removeprefix("*."))
        except Wrong as wrong:
            setting.faults.append(at.fault(str(wrong)))
    return tuple(found)


def _ready(written: ReadyFile, setting: Setting) -> Ready | None:
    at = setting.at / "ready"
    listening = written.tcp or written.udp
    if written.node is not None and listening is None:
        setting.faults.append(
            (at / "node").fault("`node` beside a log line or a command", "`node` with tcp or udp", of_key=True)
        )
    if listening is not None:
        node = setting.node
        if written.node is not None:
            other = setting.directory.node(written.node, at / "node", setting.faults)
            if other is None:
                return None
            node = other
        protocol = Protocol.TCP if written.tcp is not None else Protocol.UDP
        return ReadyPort(node.name, protocol, listening[1], listening[0])
    if written.log is not None:
        return ReadyLog(written.log)
    words = [setting.render(word, at / "run" / index) for index, word in enumerate(written.run or [])]
    return ReadyCommand(tuple(words))


def _ports(written: ServiceKeys, program: Program, ready: Ready | None, setting: Setting) -> tuple[Port, ...]:
    if written.ports is not None:
        ports: list[Port] = []
        for index, word in enumerate(written.ports):
            protocol, number = re.split("/", word)
            if int(number) > 65535:
                setting.faults.append((setting.at / "ports" / index).fault(shown(word), "a port up to 65535"))
            ports.append(Port(Protocol(protocol), int(number)))
        return tuple(dict.fromkeys(ports))
    if program.ports:
        return program.ports
    own = isinstance(ready, ReadyPort) and ready.node == setting.node.name
    if isinstance(ready, ReadyPort) and own and (ready.address is None or not ready.address.is_loopback):
        return (Port(ready.protocol, ready.port),)
    return ()
