"""`lab schema`: the JSON Schema of topology files, so that an editor completes and checks them."""

from __future__ import annotations

import json

from lab.cli.parser import Parser
from lab.errors import ExitCode


def run(words: list[str]) -> int:
    """Print the schema."""
    parser = Parser(
        "schema",
        "Print the JSON Schema of topology files. Editors with the YAML language server (VS Code, Neovim, Emacs...)\n"
        "complete and check a topology that begins with the line\n"
        "    # yaml-language-server: $schema=lab.schema.json",
        notes="What a schema cannot say (overlapping prefixes, unknown nodes...) `lab check` says.",
        example="lab schema > lab.schema.json",
    )
    parser.parse_args(words)
    from lab.topology.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return ExitCode.OK
