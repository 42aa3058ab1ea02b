"""A command that fails, told to programs: `--json` prints on standard output what people read on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.errors import ExitCode, LabError

if TYPE_CHECKING:
    from lab.host import Finding
    from lab.topology.faults import Fault

KEYS = (
    "--json if it fails: error (what standard error says, too), kind (TopologyError, UsageError, HostError,\n"
    "RealiseError, ProbeError, OSError), exit_code, faults (as `lab check --json`), lacking (as `lab doctor --json`)."
)


def tell(error: LabError | OSError) -> None:
    """Print an error for programs."""
    import json

    print(json.dumps(_plain(error), indent=2), flush=True)


def text_of(error: LabError | OSError) -> str:
    """The error in words."""
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error)


def plain_fault(fault: Fault) -> dict[str, object]:
    """A fault of a file."""
    return {
        "file": str(fault.file),
        "line": fault.line,
        "column": fault.column,
        "path": fault.path,
        "text": fault.text,
    }


def plain_finding(finding: Finding) -> dict[str, object]:
    """What was found out about this host."""
    return {
        "name": finding.name,
        "features": [str(feature) for feature in finding.features],
        "status": str(finding.status),
        "found": finding.found,
        "mend": finding.mend,
        "required": finding.required,
    }


def _plain(error: LabError | OSError) -> dict[str, Any]:
    return {
        "error": text_of(error),
        "kind": type(error).__name__ if isinstance(error, LabError) else "OSError",
        "exit_code": int(error.exit_code if isinstance(error, LabError) else ExitCode.FAILED),
        "faults": [plain_fault(fault) for fault in getattr(error, "faults", ())],
        "lacking": [plain_finding(finding) for finding in getattr(error, "lacking", ())],
    }
