"""A link's impairments as a person writes them: knobs for both directions, for one, and for a while."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from lab.topology.impairment import (
    DISTRIBUTIONS,
    KNOBS,
    Words,
    parse_distribution,
    parse_loss,
    parse_queue,
    parse_rate_or_none,
)
from lab.topology.impairment_presets import PRESETS, parse_preset
from lab.topology.scalars import Delay, Duration, Percentage, Yes

_TEXT = {"type": "string"}
_LOSS = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": dict.fromkeys(("p", "r", "good", "bad"), _TEXT), "required": ["p", "r"]},
    ]
}

Distribution = Annotated[
    str, PlainValidator(parse_distribution), WithJsonSchema({"enum": list(DISTRIBUTIONS), "type": "string"})
]
LossText = Annotated[Any, PlainValidator(parse_loss), WithJsonSchema(_LOSS)]
QueueText = Annotated[Any, PlainValidator(parse_queue), WithJsonSchema({"type": "string"})]
RateOrNone = Annotated[int, PlainValidator(parse_rate_or_none), WithJsonSchema({"type": "string"})]
PresetName = Annotated[str, PlainValidator(parse_preset), WithJsonSchema({"enum": list(PRESETS), "type": "string"})]


class DirectionFile(BaseModel):
    """`{delay: 40ms, loss: 1%}`: knobs that are not given are not touched."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    delay: Delay | None = None
    jitter: Delay | None = None
    distribution: Distribution | None = None
    loss: LossText = None
    reorder: Percentage | None = None
    duplicate: Percentage | None = None
    corrupt: Percentage | None = None
    rate: RateOrNone | None = None
    queue: QueueText = None

    def words(self) -> Words:
        """The knobs that were written."""
        return {name: getattr(self, name) for name in KNOBS if name in self.model_fields_set}


class ImpairmentFile(DirectionFile):
    """Knobs for both directions, and what one of them has otherwise."""

    preset: PresetName | None = None
    egress: DirectionFile = DirectionFile()
    ingress: DirectionFile = DirectionFile()


class ScheduledFile(ImpairmentFile):
    """`{at: 30s, for: 5s, loss: 100%}` or `{at: 1min, for: 2s, down: true}`."""

    at: Duration
    lasts: Duration | None = Field(None, alias="for")
    down: Yes | None = None
