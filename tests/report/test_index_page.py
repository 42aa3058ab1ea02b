"""The page that a person reads first: what failed, what is not well, where to look. Pure."""

from __future__ import annotations

from lab.report.index_page import NodeLine, Page, ServiceLine, to_markdown

READY = ServiceLine("nas/web", "ready", None, 0, "nodes/nas/web.log")
RESTARTED = ServiceLine("nas/ssh", "ready", None, 3, "nodes/nas/ssh.log")
FAILED = ServiceLine("pi/dns", "failed", 1, 0, "nodes/pi/dns.log")
NODE = NodeLine(
    "nas", "192.0.2.10, 2001:db8::10", (("routes", "nodes/nas/routes.txt"), ("sockets", "nodes/nas/sockets.txt"))
)


def page(**changed: object) -> str:
    usual: dict[str, object] = {
        "title": "test_it.py::test_it",
        "failure": "E   assert False\n",
        "lab": "homelab-7",
        "notes": (),
        "services": (READY,),
        "nodes": (NODE,),
        "files": (("the plan", "plan.txt"),),
    }
    return to_markdown(Page(**(usual | changed)))  # type: ignore[arg-type]


def test_the_whole_page_reads_so() -> None:
    assert (
        page(services=(READY, FAILED), notes=("pi was not\nasked",))
        == """\
# test_it.py::test_it

## What failed

    E   assert False

- pi was not asked

## Services that are not well

| service | state | exit code | restarts | log |
|---|---|---|---|---|
| pi/dns | failed | 1 | 0 | [log](nodes/pi/dns.log) |

## Where to look

Lab homelab-7:

- [the plan](plan.txt)

| node | addresses | files |
|---|---|---|
| nas | 192.0.2.10, 2001:db8::10 | [routes](nodes/nas/routes.txt), [sockets](nodes/nas/sockets.txt) |

## Services that are ready

| service | state | exit code | restarts | log |
|---|---|---|---|---|
| nas/web | ready |  | 0 | [log](nodes/nas/web.log) |
"""
    )


def test_a_service_that_was_started_again_is_not_well_though_ready() -> None:
    text = page(services=(RESTARTED,))
    assert "Services that are not well" in text
    assert "Services that are ready" not in text


def test_empty_sections_are_left_out() -> None:
    text = page(failure="", services=(), nodes=(), files=())
    assert text == "# test_it.py::test_it\n"


def test_without_a_title_the_lab_is_one() -> None:
    assert page(title="").startswith("# homelab-7\n")


def test_the_end_of_a_long_failure_is_shown() -> None:
    text = page(failure="".join(f"line {number}\n" for number in range(100)))
    assert "    ... 40 lines before are in failure.txt\n    line 40\n" in text
    assert "    line 99\n" in text
    assert "line 39" not in text


def test_a_failure_cannot_break_the_page() -> None:
    text = page(failure="```\n# not a title\n| not | a | table |")
    assert "    ```\n    # not a title\n    | not | a | table |\n" in text
