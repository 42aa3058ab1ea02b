"""The argument parser that every command uses: help that ends with an example, errors as `lab` writes them."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

from lab.cli.failure import KEYS
from lab.errors import UsageError

if TYPE_CHECKING:
    from argparse import _MutuallyExclusiveGroup as Group


class Parser(argparse.ArgumentParser):
    """Arguments of one command."""

    def __init__(self, command: str, what: str, *, example: str, notes: str = "") -> None:
        """A parser for ``lab COMMAND``; `what` begins the help, `notes` and the example end it."""
        self._notes, self._example = notes, "\n".join(f"  {line}" for line in example.splitlines())
        super().__init__(
            prog=f"lab {command}",
            description=what,
            epilog=self._end(notes),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """What is wrong with the arguments is told as any other error, to programs too."""
        raise UsageError(f"{self.prog.removeprefix('lab ')}: {message}\n{self.format_usage().rstrip()}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the process."""
        if message:
            sys.stderr.write(message)
        sys.exit(status)

    def add_lab(self) -> None:
        """`--lab NAME`."""
        self.add_argument(
            "--lab", metavar="NAME", help="the lab; default: $HOMELAB_LAB, else the only one that is running"
        )

    def add_json(
        self, what: str = "the same as JSON, for programs", *, group: Group | None = None, may_fail: bool = True
    ) -> None:
        """`--json`, perhaps in a group; the help says what is printed if the command fails, where it may."""
        (group or self).add_argument("--json", action="store_true", help=what)
        if may_fail:
            self.epilog = self._end(f"{self._notes}\n{KEYS}")

    def _end(self, notes: str) -> str:
        return f"{notes}\n\nexample:\n{self._example}".strip()
