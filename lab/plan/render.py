"""A plan as text for people: one numbered line a step."""

from __future__ import annotations

from lab.plan.step import Plan


def to_text(plan: Plan) -> str:
    """Every step on its own line (a ruleset follows its line, indented)."""
    width = len(str(len(plan.steps)))
    lines = [f"{number:>{width}}  {step.describe()}" for number, step in enumerate(plan.steps, 1)]
    return "\n".join([f"lab {plan.name}: {len(plan.steps)} steps", *lines]) + "\n"
