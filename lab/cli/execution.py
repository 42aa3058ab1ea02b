"""`lab exec` and `lab shell`: a command in a node, with this process's own streams or a terminal of its own."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress

from lab.cli.parser import Parser
from lab.cli.running_lab import connect
from lab.errors import RealiseError
from lab.realise.asking import ask
from lab.realise.message import Message, receive, send

NOT_STARTED = 127  # as env(1) and shells have it
SIGNALLED = 128  # plus the signal's number

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def run(words: list[str]) -> int:
    """Run a command and return its exit code."""
    parser = Parser(
        "exec",
        "Run a command in a node, as the node's root, in this directory if the node has it. Standard input, output\n"
        "and errors are passed as they are; with a terminal on both, the command gets a terminal of its own.",
        notes="Exit code: that of the command; 128 + n if signal n ended it; 127 if it could not be started.",
        example="lab exec phone -- curl https://git.nas.example.net/",
    )
    parser.usage = "lab exec [--lab NAME] [--user USER] [--env KEY=VALUE]... [-t | -T] NODE -- COMMAND..."
    parser.add_lab()
    parser.add_argument("--user", metavar="USER", default="", help="run it as this user of the host's /etc/passwd")
    parser.add_argument("--env", metavar="KEY=VALUE", action="append", default=[], help="one more environment variable")
    terminal = parser.add_mutually_exclusive_group()
    terminal.add_argument("-t", dest="terminal", action="store_true", default=None, help="give it a terminal anyway")
    terminal.add_argument("-T", dest="terminal", action="store_false", help="give it none")
    parser.add_argument("node", metavar="NODE")
    if "--" in words:
        cut = words.index("--")
        options, command = parser.parse_args(words[:cut]), words[cut + 1 :]
    else:
        parser.add_argument("command", metavar="COMMAND", nargs="...")
        options = parser.parse_args(words)
        command = options.command
    if not command:
        parser.error("no command; `lab shell NODE` opens a shell")
    environment = {}
    for pair in options.env:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            parser.error(f"--env {pair!r}: KEY=VALUE")
        environment[key] = value
    has_terminal = options.terminal if options.terminal is not None else _on_terminal()
    request = run_request(options.node, command, user=options.user, environment=environment)
    return execute(options.lab, request, terminal=has_terminal)


def shell(words: list[str]) -> int:
    """Open an interactive shell; its exit code."""
    parser = Parser(
        "shell",
        "Open a shell in a node: bash, or sh where the host has no bash. The prompt shows the node.",
        example="lab shell nas",
    )
    parser.add_lab()
    parser.add_argument("--user", metavar="USER", default="", help="be this user of the host's /etc/passwd")
    parser.add_argument("node", metavar="NODE")
    options = parser.parse_args(words)
    terminal = _on_terminal()
    bold, plain = (r"\[\e[1;36m\]", r"\[\e[0m\]") if not os.environ.get("NO_COLOR") else ("", "")
    attempts = (
        (["bash", "--norc"] + (["-i"] if terminal else []), rf"{bold}{options.node}{plain}:\w\$ "),
        (["sh"] + (["-i"] if terminal else []), f"{options.node}:$PWD$ "),
    )
    command, prompt = attempts[0] if _has("bash") else attempts[1]
    request = run_request(options.node, command, user=options.user, environment={"PS1": prompt})
    return execute(options.lab, request, terminal=terminal)


def run_request(node: str, argv: list[str], *, user: str, environment: dict[str, str]) -> Message:
    """The request to the supervisor."""
    try:
        folder = os.getcwd()  # noqa: PTH109 - a string is wanted
    except FileNotFoundError:
        folder = ""
    return {
        "ask": "run",
        "node": node,
        "argv": argv,
        "environment": environment,
        "folder": folder,
        "user": user,
        "terminal": None,
    }


def execute(lab: str | None, request: Message, *, terminal: bool) -> int:
    """Run it to its end; signals to this process reach it, and it ends with this process.

    Raises:
        UsageError: no such lab or node.
        RealiseError: the lab ended meanwhile.
    """
    with connect(lab) as channel:
        if terminal:
            from lab.cli.terminal import converse

            kept = {name: os.environ[name] for name in ("TERM", "COLORTERM") if name in os.environ}
            request["environment"] = kept | request["environment"]
            code = converse(channel, request, start)
        else:
            # The command may run before this process hears of it: a signal that comes meanwhile waits for its handler.
            signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
            start(channel, request, (0, 1, 2))
            for number in _PASSED_ON:
                signal.signal(number, lambda number, _: pass_on(channel, number))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
            code = wait(channel)
    return SIGNALLED - code if code < 0 else code


def start(channel: socket.socket, request: Message, descriptors: tuple[int, ...] = ()) -> list[int]:
    """Have the command started; ends this process with 127 if it cannot be."""
    try:
        return ask(channel, request, descriptors)[1]
    except RealiseError as error:
        print(f"lab: error: {error}", file=sys.stderr)
        sys.exit(NOT_STARTED)


def pass_on(channel: socket.socket, number: int) -> None:
    """Send a signal to the command and those that it started."""
    with suppress(OSError):  # it has ended
        send(channel, {"ask": "signal-process", "signal": number})


def wait(channel: socket.socket) -> int:
    """Its exit code, minus the signal's number if one ended it."""
    while (received := receive(channel)) is not None:
        if "exit" in received[0]:
            return int(received[0]["exit"])
    raise RealiseError("the lab has ended, and the command with it")


def _on_terminal() -> bool:
    return os.isatty(0) and os.isatty(1)


def _has(program: str) -> bool:
    """Whether the nodes, which see the host's programs, have this one."""
    return any(os.access(f"{folder}/{program}", os.X_OK) for folder in ("/usr/local/bin", "/usr/bin", "/bin"))
