"""The page of the evidence that a person reads first, as Markdown. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST_FAILURE = 60  # lines shown on the page; the whole is beside it


@dataclass(frozen=True, slots=True)
class ServiceLine:
    """The state of a service when the test failed."""

    name: str  # "node/service"
    state: str
    exit_code: int | None
    restarts: int
    log: str  # path from the page

    @property
    def is_well(self) -> bool:
        return self.state == "ready" and not self.restarts


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node and its files."""

    name: str
    addresses: str
    files: tuple[tuple[str, str], ...]  # what it is about, path from the page


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page says."""

    title: str
    failure: str
    lab: str
    notes: tuple[str, ...]
    services: tuple[ServiceLine, ...]
    nodes: tuple[NodeLine, ...]
    files: tuple[tuple[str, str], ...]


def to_markdown(page: Page) -> str:
    """The page; sections that would be empty are left out."""
    parts = [f"# {page.title or page.lab}\n"]
    if page.failure:
        parts.append(f"## What failed\n\n{_quoted(page.failure)}")
    if page.notes:
        parts.append("\n".join(f"- {_one_line(note)}" for note in page.notes) + "\n")
    unwell = [service for service in page.services if not service.is_well]
    if unwell:
        parts.append("## Services that are not well\n\n" + _services(unwell))
    if page.files:
        parts.append(f"## Where to look\n\nLab {page.lab}:\n\n" + "".join(f"- {_link(*file)}\n" for file in page.files))
    if page.nodes:
        parts.append("| node | addresses | files |\n|---|---|---|\n" + "".join(_node(node) for node in page.nodes))
    well = [service for service in page.services if service.is_well]
    if well:
        parts.append("## Services that are ready\n\n" + _services(well))
    return "\n".join(parts)


def _quoted(text: str) -> str:
    """Indented, for a failure may hold anything, fences too; its end is what names the cause."""
    lines = text.splitlines()
    cut = (
        [f"... {len(lines) - _LONGEST_FAILURE} lines before are in failure.txt"]
        if len(lines) > _LONGEST_FAILURE
        else []
    )
    return "".join(f"    {line}\n" for line in [*cut, *lines[-_LONGEST_FAILURE:]])


def _services(services: list[ServiceLine]) -> str:
    rows = "".join(
        f"| {service.name} | {service.state} | {'' if service.exit_code is None else service.exit_code} "
        f"| {service.restarts} | {_link('log', service.log)} |\n"
        for service in services
    )
    return "| service | state | exit code | restarts | log |\n|---|---|---|---|---|\n" + rows


def _node(node: NodeLine) -> str:
    return f"| {node.name} | {node.addresses} | {', '.join(_link(*file) for file in node.files)} |\n"


def _link(about: str, path: str) -> str:
    return f"[{about}]({path})"


def _one_line(text: str) -> str:
    return " ".join(text.split())
