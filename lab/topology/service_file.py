"""The keys that every service has, as a person writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lab.topology.file import AsWritten, exactly_one
from lab.topology.scalars import Command, Duration, Listening, Pattern, UserName, Value

DEFAULT_READY_TIMEOUT = 10.0  # seconds

PortWord = Annotated[str, Field(pattern=r"^(tcp|udp)/[1-9][0-9]{0,4}$")]


class InlineFile(AsWritten):
    """A service's file: a path relative to the topology file, or `{text: ...}`."""

    path: str | None = None
    text: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_kind(self) -> InlineFile:
        exactly_one(self, ("path", "text"))
        return self


class ReadyFile(AsWritten):
    """When a service is ready: `{tcp: 443}`, `{udp: "127.0.0.1:53"}`, `{log: started}`, `{run: [...]}`."""

    tcp: Listening | None = None
    udp: Listening | None = None
    log: Pattern | None = None
    run: Command | None = None
    node: str | None = None
    timeout: Duration = DEFAULT_READY_TIMEOUT

    @model_validator(mode="after")
    def _one_kind(self) -> ReadyFile:
        exactly_one(self, ("tcp", "udp", "log", "run"))
        return self


class ServiceKeys(AsWritten):
    """Common to `run:` and to every `use:`."""

    files: dict[str, InlineFile] = Field(default={})
    ready: ReadyFile | None = None
    restart: Literal["never", "on-failure", "always"] | None = None
    user: UserName | None = None
    env: dict[str, Value] = Field(default={})
    after: list[str] = Field(default=[])
    tls: list[str] = Field(default=[])
    ports: list[PortWord] | None = None


class RunFile(ServiceKeys):
    """Any command: a line with a shell's quoting but no shell, or a list of words."""

    run: Command
