"""`lab move`: a host leaves a network for another, as people carry laptops about."""

from __future__ import annotations

from lab.cli.parser import Parser
from lab.cli.running_lab import connect, require_node
from lab.errors import ExitCode
from lab.realise.asking import ask
from lab.realise.fault import await_recovery


def run(words: list[str]) -> int:
    """Move it, and say which addresses it has there."""
    parser = Parser(
        "move",
        "Let a host leave a network for another. Its interface stays, with name and MAC address; addresses, routes,\n"
        "resolvers are those of the new place. Back where the file has it, it has the address that the file gives.",
        notes="Connections die as in life. The other hosts of both networks know the new names at once.",
        example="lab move laptop cafe-lan\nlab move laptop home",
    )
    parser.add_argument("node", metavar="NODE", help="a host")
    parser.add_argument("network", metavar="NETWORK", help="where it goes")
    parser.add_argument("--from", metavar="NETWORK", dest="leaving", help="what it leaves, if it has several links")
    parser.add_lab()
    options = parser.parse_args(words)
    with connect(options.lab) as channel:
        request = {"ask": "move", "node": options.node, "network": options.network, "leaving": options.leaving}
        answer = ask(channel, request)[0]
        await_recovery(channel, answer["await"])
    links = require_node(answer["facts"], options.node)["interfaces"]
    (there,) = [link for link in links if link["network"] == options.network]
    print(
        f"{options.node} is in {options.network}: {there['name']} has {', '.join(there['addresses']) or 'no address'}"
    )
    return ExitCode.OK
