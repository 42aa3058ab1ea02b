"""A plan as JSON and back: what `lab plan --json` prints is what the supervisor executes."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache
from typing import Any, get_args

from lab.plan.step import Certificate, MeshEnd, Plan, Ready, SshServer, Step

_PARTS = {part.__name__: part for part in (*get_args(Step), Certificate, MeshEnd, Ready, SshServer)}


def to_json(plan: Plan, *, indent: int | None = None) -> str:
    """The plan as a JSON object ``{"name": ..., "steps": [{"step": "CreateNode", ...}, ...]}``."""
    steps = [_plain(step) for step in plan.steps]
    return json.dumps({"name": plan.name, "steps": steps}, indent=indent)


def from_json(text: str) -> Plan:
    """The plan that `to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: the text is not such a plan.
    """
    document = json.loads(text, object_hook=_revive)
    return Plan(name=document["name"], steps=tuple(document["steps"]))


def _plain(value: Any) -> Any:
    kind: type = type(value)
    if kind is tuple:
        return [_plain(item) for item in value]
    if kind.__name__ in _PARTS:
        return {"step": kind.__name__} | {name: _plain(getattr(value, name)) for name in _field_names(kind)}
    return value


def _revive(found: dict[str, Any]) -> Any:
    kind = found.pop("step", None)
    if kind is None:
        return found
    return _PARTS[kind](**{name: _frozen(value) for name, value in found.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


@cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
