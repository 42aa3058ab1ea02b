"""Evidence of a real lab: every node's state as the kernel tells it, bounded, whatever is missing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.report import evidence
from lab.report.evidence import folder_name, write_evidence, write_failure
from lab.report.node_evidence import QUESTIONS, Question, answer

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   nas -- home -- router (NAT) -- internet -- server
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"], internet: true}
  home: {prefixes: [192.168.1.0/24, "2001:db8:10::/64"]}
nodes:
  server: {links: {internet: 198.51.100.10}}
  router: {role: router, links: {internet: 198.51.100.1, home: 192.168.1.1}, nat: {outside: internet}}
  nas:
    links: {home: 192.168.1.10}
    services:
      web: {run: "python3 -u -m http.server 8080", ready: {tcp: 8080}}
      once: {run: "sh -c 'echo done; until [ -e end ]; do sleep 0.01; done; exit 4'", ready: {log: done}}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, worker: str) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("topology") / "evidence.yaml"
    file.write_text(TOPOLOGY)
    with Lab.up(file, name=f"evidence-{worker}") as made:
        made["server"].udp(7).close()
        made["nas"].run(["touch", "/run/lab/services/once/end"], check=True)
        wait_until(lambda: "ended" in [each["state"] for each in made.services()], 30, "one of its services has ended")
        yield made


@pytest.fixture(scope="module")
def folder(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with lab["server"].listen(9000), lab["nas"].connect(("198.51.100.10", 9000)):
        folder = tmp_path_factory.mktemp("evidence") / "made" / "for it"
        page = write_evidence(lab, folder, title="a test", failure="E  it failed")
    assert page == folder / "index.md"
    return folder


@pytest.mark.parametrize(
    ("file", "witnesses"),
    [
        ("nodes/nas/addresses.txt", ["192.168.1.10/24", "mtu 1500", "02:00:00:"]),
        (
            "nodes/nas/routes.txt",
            ["default via 192.168.1.1", "from all lookup main", "# ip -6 route", "2001:db8:10::/64 dev"],
        ),
        ("nodes/nas/neighbours.txt", ["192.168.1.1 dev home"]),
        ("nodes/nas/counters.txt", ["RX:", "TX:", "dropped"]),
        ("nodes/router/ruleset.txt", ["masquerade", "chain forward"]),
        ("nodes/nas/ruleset.txt", ["# nft list ruleset\n(nothing)\n"]),
        ("nodes/nas/sockets.txt", ["LISTEN", ":8080", "198.51.100.10:9000"]),
        ("nodes/router/flows.txt", ["# cat /proc/net/nf_conntrack\n"]),
        ("nodes/nas/once.log", ["done\n"]),
        ("nodes/nas/web.log", [""]),
        ("topology.yaml", ["nas -- home -- router (NAT) -- internet -- server"]),
        ("plan.txt", ["lab evidence-", "create node nas", "masquerade", "start nas/web"]),
        ("failure.txt", ["E  it failed"]),
    ],
)
def test_a_file_of_the_evidence_holds_its_facts(folder: Path, file: str, witnesses: list[str]) -> None:
    text = (folder / file).read_text()
    assert [witness for witness in witnesses if witness not in text] == []


def test_every_node_is_asked_every_question(lab: Lab, folder: Path) -> None:
    asked = {path.relative_to(folder / "nodes").parts for path in folder.glob("nodes/*/*.txt")}
    assert len(QUESTIONS) == 7
    assert asked == {(node, question.file) for node in lab.nodes for question in QUESTIONS}


def test_the_page_leads_to_every_file_that_there_is(folder: Path) -> None:
    page = (folder / "index.md").read_text()
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "index.md"]
    assert len(files) > 20
    assert [file for file in files if f"]({file})" not in page] == []


def test_the_page_names_the_services_that_are_not_well(folder: Path) -> None:
    page = (folder / "index.md").read_text()
    unwell, well = page.split("## Services that are ready")
    assert "| nas/once | ended | 4 | 0 |" in unwell
    assert "| nas/web | ready |" in well
    assert "nas/web" not in unwell.partition("## Services that are not well")[2].partition("## Where")[0]


def test_writing_again_replaces(lab: Lab, tmp_path: Path) -> None:
    write_evidence(lab, tmp_path, failure="first")
    write_evidence(lab, tmp_path, failure="second")
    assert (tmp_path / "failure.txt").read_text() == "second"


def test_a_long_file_is_cut_to_its_end(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evidence.LONGEST_FILE == 4 * 1024 * 1024
    monkeypatch.setattr(evidence, "LONGEST_FILE", 1000)
    failure = "x" * 5000 + "the end"
    write_evidence(lab, tmp_path, failure=failure)
    text = (tmp_path / "failure.txt").read_text()
    assert text.startswith("... 4007 bytes before were left out\n")
    assert text.endswith("the end")
    assert all(path.stat().st_size <= 1100 for path in tmp_path.rglob("*") if path.is_file())


def test_a_program_that_is_missing_is_noted(lab: Lab) -> None:
    said = answer(lab["nas"], Question("x.txt", "x", (("no-such-program", "-x"), ("hostname",))))
    assert said.startswith("# no-such-program -x\n(not known: nas: cannot run 'no-such-program'")
    assert said.endswith("# hostname\nnas\n")


def test_a_program_that_fails_keeps_what_it_said(lab: Lab) -> None:
    said = answer(lab["nas"], Question("x.txt", "x", (("sh", "-c", "echo so far; echo oh >&2; exit 5"),)))
    assert said.endswith("so far\noh\n(exit code 5)\n")


def test_a_program_that_hangs_is_noted_after_its_deadline(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.report.node_evidence._DEADLINE", 0.1)
    began = time.monotonic()
    said = answer(lab["nas"], Question("x.txt", "x", (("sleep", "1000"),)))
    assert "did not end within 0.1 s" in said
    assert time.monotonic() - began < 100


def test_nodes_that_could_not_be_asked_in_time_are_named(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "_TIME_FOR_ALL", -1.0)
    page = write_evidence(lab, tmp_path).read_text()
    assert all(f"- {node} was not asked: " in page for node in lab.nodes)


def test_of_a_lab_that_is_gone_the_plan_remains(tmp_path: Path, worker: str) -> None:
    file = tmp_path / "gone.yaml"
    file.write_text("networks: {lan: {prefixes: [192.0.2.0/24]}}\nnodes: {a: {links: {lan: auto}}}\n")
    lab = Lab.up(file, name=f"gone-{worker}")
    lab.down()
    page = write_evidence(lab, tmp_path / "evidence", title="t").read_text()
    assert "- The lab could not be asked: " in page
    assert "create node a" in (tmp_path / "evidence" / "plan.txt").read_text()


def test_a_topology_file_that_has_gone_is_noted(tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    write_failure(folder, "a test", "why", tmp_path / "gone.yaml")
    assert "could not be read: No such file" in (folder / "topology.yaml").read_text()
    assert "There is no plan:" in (folder / "plan.txt").read_text()


def test_the_evidence_of_a_lab_that_did_not_come_up_holds_its_error(tmp_path: Path) -> None:
    file = tmp_path / "faulty.yaml"
    file.write_text("nodes: {a: {links: {nowhere: auto}}}\n")
    page = write_failure(tmp_path / "evidence", "test_it.py::test_it", "the lab's own words", file).read_text()
    assert page.startswith("# test_it.py::test_it\n")
    assert "    the lab's own words\n" in page
    assert "- The lab did not come up." in page
    assert "faulty.yaml:1:" in (tmp_path / "evidence" / "plan.txt").read_text()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("scenarios/test_x.py::test_y", "scenarios-test_x.py--test_y"),
        ("test_x.py::TestIt::test_y", "test_x.py--TestIt--test_y"),
    ],
)
def test_a_tests_folder_has_a_readable_name(title: str, name: str) -> None:
    assert folder_name(title) == name


@pytest.mark.parametrize(
    "title", ["test_y[a/b]", "../../../etc", "t" * 300 + "[1]", "t" * 300, "ünïcode[ü]", "a\nb\0c", "::", "..", ""]
)
def test_any_title_makes_a_name_that_stays_in_its_folder(title: str) -> None:
    name = folder_name(title)
    assert 0 < len(name) <= 120
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert name not in (".", "..")


def test_titles_that_look_alike_have_names_of_their_own() -> None:
    alike = ["t[a/b]", "t[a:b]", "t[a b]", "t" * 200 + "1", "t" * 200 + "2", "a/b::c", "a-b::c", "a/b/c", "a::b::c"]
    assert len({folder_name(title) for title in alike}) == len(alike)


@pytest.mark.alone  # it measures what NAT does
def test_what_nat_does_is_measured_and_linked(folder: Path) -> None:
    page = (folder / "nat.md").read_text()
    assert "| router | endpoint_independent | address_and_port_dependent | preserve | none | yes |  |\n" in page
    assert "| mapping | endpoint_independent | endpoint_independent | holds | 4787 REQ-1 met |\n" in page
    (certificate,) = json.loads((folder / "nat.json").read_text())
    assert certificate["as_declared"] is True
    assert "[what NAT does, measured](nat.md)" in (folder / "index.md").read_text()
