"""The way into the command `lab`: finds the command by its word, runs it, turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from lab.cli.quick_start import quick_start

# Word -> module, and its line in the short help. A module is imported only when its command is asked for.
COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("check", "read topology files and name all their faults"),
    "plan": ("plan", "show what would be done, step by step"),
    "up": ("up", "make a topology real and wait until its services are ready"),
    "ps": ("ps", "list the running labs"),
    "inspect": ("inspection", "show nodes, addresses and services of a running lab"),
    "logs": ("logs", "show what services wrote"),
    "exec": ("execution", "run a command in a node"),
    "shell": ("shell", "open a shell in a node"),
    "link": ("link", "show links, and delay, cut or slow them while the lab runs"),
    "reach": ("reach", "measure who can reach what: a matrix of nodes and services"),
    "fault": ("fault", "let something go wrong, see what is in force, heal it"),
    "move": ("move", "let a host leave a network for another"),
    "mesh": ("mesh", "show which way the packets of a mesh take, as both ends see it"),
    "capture": ("capture", "write what interfaces carry to a pcapng file, for Wireshark"),
    "nat": ("nat", "measure what routers with NAT do, beside what is declared of them"),
    "conform": ("conform", "ask any product what PROXY headers it takes, beside the specification"),
    "graph": ("graph", "draw a topology as SVG or Mermaid"),
    "doctor": ("doctor", "try what this host can do for a lab, and say how to mend the rest"),
    "schema": ("schema", "print the JSON Schema of topology files, for editors"),
    "down": ("down", "end running labs"),
}

INTERRUPTED = 130  # 128 + SIGINT, as shells count
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(arguments: list[str] | None = None) -> int:
    """Run `lab` with these arguments (default: those of the process) and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    try:
        code = _run(words)
        sys.stdout.flush()
    except SystemExit as end:  # of argparse, which has said why
        return end.code if isinstance(end.code, int) else 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough. The interpreter flushes once more at exit, into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last one to catch it
        return _explain(error)
    return code


def _open_closed_streams() -> None:
    """Put /dev/null where standard streams are closed, lest the next socket be taken for one of them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest free number
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), mode))


def _run(words: list[str]) -> int:
    word = words[0] if words else "--help"
    if word in ("-h", "--help", "help"):
        return _help(words[1:])
    if word in ("-V", "--version"):
        from importlib.metadata import version

        print(f"lab {version('homelab-lab')}")
        return 0
    if word not in COMMANDS:
        _complain(f"{_unknown(word)}\n{_summary()}")
        return 2
    quick_start()
    module = import_module(f"lab.cli.{COMMANDS[word][0]}")
    try:
        return int(module.run(words[1:]))
    except Exception as error:
        if "--json" in words and word != "exec":  # whose words are another program's
            _tell_programs(error)
        raise


def _tell_programs(error: Exception) -> None:
    from lab.cli.failure import tell
    from lab.errors import LabError

    if isinstance(error, LabError | OSError) and not isinstance(error, BrokenPipeError):
        tell(error)


def _help(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        return _run([words[0], "--help"])
    print(_summary())
    return 0


def _summary() -> str:
    return "\n".join(
        [
            "usage: lab COMMAND ...    a whole home network on one Linux kernel, without root",
            "",
            *(f"  {word:8} {line}" for word, (_, line) in COMMANDS.items()),
            "",
            "`lab COMMAND --help` tells more. The lab is chosen by --lab, else HOMELAB_LAB, else the only one running.",
            "Exit codes: 0 done, 1 ran and failed, 2 wrong input, 3 this host is not able.",
            "",
            "example:",
            "  lab up topologies/homelab.yaml && lab reach; lab down",
        ]
    )


def _unknown(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, n=1)
    return f"no command {word[:60]!r}" + (f"; did you mean `lab {near[0]}`?" if near else "") + "\n"


def _explain(error: Exception) -> int:
    from lab.cli.failure import text_of
    from lab.errors import ExitCode, LabError

    if os.environ.get("HOMELAB_LAB_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    if isinstance(error, LabError):
        _complain(text_of(error))
        return error.exit_code
    if isinstance(error, OSError) and error.strerror is not None:
        _complain(text_of(error))
        return ExitCode.FAILED
    import traceback

    place = traceback.extract_tb(error.__traceback__)[-1]
    _complain(
        f"a defect of lab: {type(error).__name__}: {error} ({place.filename}:{place.lineno}); "
        "with HOMELAB_LAB_DEBUG=1 in the environment the whole traceback is shown"
    )
    return ExitCode.FAILED


def _complain(text: str) -> None:
    print(f"lab: error: {text}", file=sys.stderr)


def command() -> None:
    """Be the command: run `main` and end the process with its exit code.

    Without taking the interpreter apart, which is of use to nobody here and a tenth of the time of `lab check`.
    """
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # whether or not anybody still reads
        os._exit(code)


if __name__ == "__main__":
    command()
