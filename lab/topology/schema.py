"""JSON Schema of the topology file, for editors; what only meaning can tell (references, clashes) is not in it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from lab.topology.file import NetworkFile, NodeFile, TopologyFile
from lab.topology.mesh_file import MeshFile
from lab.topology.service_file import RunFile
from lab.topology.services.catalogue import CATALOGUE

_TEMPLATE = "#/$defs/{model}"


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    services: list[type[BaseModel]] = [RunFile, *(known.written for known in CATALOGUE.values())]
    models: list[type[BaseModel]] = [TopologyFile, NetworkFile, NodeFile, MeshFile, *services]
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template=_TEMPLATE)
    definitions = schema["$defs"]
    top = definitions.pop("TopologyFile")
    top["properties"]["networks"]["additionalProperties"] = _reference(NetworkFile)
    top["properties"]["nodes"]["additionalProperties"] = _reference(NodeFile)
    top["properties"]["mesh"]["additionalProperties"] = _reference(MeshFile)
    definitions["NodeFile"]["properties"]["services"]["additionalProperties"] = {
        "oneOf": [_reference(s) for s in services]
    }
    for name in ("LinkFile", "InlineFile"):
        definitions[name] = _with_short_form(name, definitions[name])
    return {"$schema": GenerateJsonSchema.schema_dialect, **top, "title": "Homelab Lab topology", "$defs": definitions}


def _reference(model: type) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(model=model.__name__)}


def _with_short_form(name: str, full: dict[str, Any]) -> dict[str, Any]:
    """A link may be its address alone, a file its path alone."""
    short = full["properties"]["address"] if name == "LinkFile" else {"type": "string"}
    return {"description": full.pop("description", ""), "anyOf": [*short.get("anyOf", [short]), full]}
