"""`lab shell`: a command module of its own, so that every command is found in the same way."""

from __future__ import annotations

from lab.cli.execution import shell as run

__all__ = ["run"]
