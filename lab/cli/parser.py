"""The argument parser that every command uses: help that ends with an example, errors as `lab` writes them."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Arguments of one command."""

    def __init__(self, command: str, what: str, *, example: str, notes: str = "") -> None:
        """A parser for ``lab COMMAND``; `what` begins the help, `notes` and the example end it."""
        indented = "\n".join(f"  {line}" for line in example.splitlines())
        super().__init__(
            prog=f"lab {command}",
            description=what,
            epilog=f"{notes}\n\nexample:\n{indented}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments and end with exit code 2."""
        self.exit(2, f"lab: error: {self.prog.removeprefix('lab ')}: {message}\n{self.format_usage()}")

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

    def add_json(self, what: str = "the same as JSON, for programs") -> None:
        """`--json`."""
        self.add_argument("--json", action="store_true", help=what)
