"""Plain values -> as-written types; what pydantic finds becomes faults in the words of the file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from lab.topology.faults import Wrong, listed, shown
from lab.topology.source import At

if TYPE_CHECKING:
    from lab.topology.faults import Fault

M = TypeVar("M", bound=BaseModel)

_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def shape(kind: type[M], data: object, at: At, faults: list[Fault]) -> M | None:
    """The value as `kind`, or None and all its faults."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults += [_fault(kind, dict(found), at) for found in error.errors(include_url=False)]
        return None


def shape_what_is_sound(kind: type[M], data: object, at: At, faults: list[Fault]) -> tuple[M | None, bool]:
    """As `shape`, but a value with faults is shaped without its faulty keys; and whether nothing had to be left out.

    Meaning can then be looked for in the rest, so that a person sees all faults at once.
    """
    try:
        return kind.model_validate(data), True
    except ValidationError as error:
        found = error.errors(include_url=False)
    faults += [_fault(kind, dict(each), at) for each in found]
    if not isinstance(data, dict):
        return None, False
    places = [each["loc"] for each in found]
    for keep_firewall in (True, False):
        try:
            return kind.model_validate(_without(data, places, keep_firewall=keep_firewall)), False
        except ValidationError:
            continue
    return None, False


def _without(data: dict[str, Any], places: list[tuple[str | int, ...]], *, keep_firewall: bool) -> dict[str, Any]:
    """The mapping without its faulty parts: of a mapping by name one entry, otherwise the whole key.

    A firewall hardly has a key that it needs, so that what else it says can be kept (`keep_firewall`).
    """
    rest = dict(data)
    for place in places:
        key = place[0] if place else None
        if keep_firewall and key == "firewall" and len(place) > 1:
            rest["firewall"] = _without_key(rest["firewall"], place[1:])
            continue
        part = rest.get(str(key))
        if len(place) > 1 and key in ("links", "services", "hosts", "sysctls") and isinstance(part, dict):
            rest[str(key)] = {name: value for name, value in part.items() if name != place[1]}
        else:
            rest.pop(str(key), None)
    return rest


def _without_key(data: Any, place: tuple[str | int, ...]) -> Any:
    """A copy of `data` without the key at `place`; items of lists keep their numbers."""
    head, below = place[0], place[1:]
    if isinstance(data, dict) and head in data:
        rest = {key: value for key, value in data.items() if below or key != head}
        return {**rest, head: _without_key(data[head], below)} if below else rest
    if isinstance(data, list) and isinstance(head, int) and below:
        return [_without_key(item, below) if index == head else item for index, item in enumerate(data)]
    return data


def _fault(kind: type[BaseModel], error: dict[str, Any], at: At) -> Fault:
    place = at
    for segment in error["loc"]:
        place = place / segment
    name, value, context = error["type"], error["input"], error.get("ctx", {})
    last = error["loc"][-1] if error["loc"] else ""
    if isinstance(context.get("error"), Wrong):
        return place.fault(str(context["error"]))
    if name == "extra_forbidden":
        known = keys_at(kind, error["loc"][:-1])
        return place.fault(
            f"unknown key {shown(last)}", f"allowed: {listed(known, most=30)}", near=(str(last), known), of_key=True
        )
    if name == "missing":
        parent = At(place.source, place.path[:-1])
        return parent.fault(f"the key '{last}' is missing", of_key=True)
    words = re.findall("'([^']+)'", str(context["expected"])) if name == "literal_error" else []
    near = (value, words) if words and isinstance(value, str) else None
    return place.fault(shown(value), _allowed(name, context, value), near=near)


def _allowed(name: str, context: dict[str, Any], value: object) -> str:
    if name in _KINDS:
        quote = "; quote it" if name == "string_type" and isinstance(value, int) else ""
        return _KINDS[name] + quote
    match name:
        case "literal_error":
            return str(context["expected"]).replace("'", "")
        case "greater_than_equal":
            return f"at least {context['ge']}"
        case "less_than_equal":
            return f"at most {context['le']}"
        case "too_short":
            return f"at least {context['min_length']} in the list"
        case "too_long":
            return f"at most {context['max_length']} in the list"
        case "string_pattern_mismatch" if "tcp|udp" in context["pattern"]:
            return "a protocol and a port, as tcp/443 or udp/53"
        case _:
            return name.replace("_", " ")


def keys_at(kind: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that a mapping at `loc` below `kind` may have."""
    annotation: Any = kind
    for segment in loc:
        model = _model_in(annotation)
        if get_origin(annotation) in (dict, list):
            annotation = get_args(annotation)[-1]
        elif model is not None:
            fields = {field.alias or key: field.annotation for key, field in model.model_fields.items()}
            annotation = _container_or_model(fields.get(str(segment)))
    model = _model_in(annotation)
    return [field.alias or key for key, field in model.model_fields.items()] if model is not None else []


def _container_or_model(annotation: Any) -> Any:
    """`X | None` without the None."""
    if get_origin(annotation) in (dict, list) or isinstance(annotation, type):
        return annotation
    return next((part for part in get_args(annotation) if part is not type(None)), None)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
        return annotation
    return None
