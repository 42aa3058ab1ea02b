"""A plan as JSON says all that the plan says, and what is no plan is refused in one of three ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.plan.build import build
from lab.plan.encoding import from_json, to_json
from lab.plan.step import Plan, ScheduleLink, StartService, Step
from lab.topology.load import load_topology

FINITE = st.floats(allow_nan=False, allow_infinity=False)
STEPS = st.one_of(
    *(st.from_type(kind) for kind in get_args(Step) if kind not in (StartService, ScheduleLink)),
    st.builds(StartService, ready_timeout=FINITE),
    st.builds(ScheduleLink, at=FINITE, lasts=FINITE),
)
PLANS = st.builds(Plan, name=st.text(), steps=st.lists(STEPS, max_size=5).map(tuple))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "steps", "step", "node"]) | st.text(max_size=3), inner, max_size=3)
    ),
)


def test_the_plan_of_a_topology_comes_back_as_it_was(file: Path) -> None:
    plan = build(load_topology(file))
    assert plan.steps
    assert from_json(to_json(plan)) == plan
    assert from_json(to_json(plan, indent=2)) == plan


@given(PLANS)
def test_any_plan_comes_back_as_it_was(plan: Plan) -> None:
    back = from_json(to_json(plan))
    assert back == plan
    assert [type(step) for step in back.steps] == [type(step) for step in plan.steps]
    assert hash(back) == hash(plan)  # tuples all the way down


def test_the_text_is_what_the_command_promises(file: Path) -> None:
    plan = build(load_topology(file))
    document = json.loads(to_json(plan))
    assert document.keys() == {"name", "steps"}
    assert document["name"] == plan.name
    assert [step["step"] for step in document["steps"]] == [type(step).__name__ for step in plan.steps]


@given(JSON)
def test_any_other_json_is_refused_as_documented(value: Any) -> None:
    try:
        plan = from_json(json.dumps(value))
    except (KeyError, TypeError, ValueError):
        return
    assert isinstance(plan, Plan)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", ValueError),
        ("[]", TypeError),
        ("{}", KeyError),
        ('{"name": "a", "steps": [{"step": "Dance"}]}', KeyError),
        ('{"name": "a", "steps": [{"step": "CreateSwitch", "network": "lan"}]}', TypeError),
    ],
)
def test_what_is_no_plan_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        from_json(text)
