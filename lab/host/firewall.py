"""Whether nftables loads the kinds of rules that a lab's NAT and firewalls are made of, and tracks connections."""

from __future__ import annotations

import errno

from lab.host import netlink, programs
from lab.host.finding import Feature, Finding, Status, Verdict, finding
from lab.host.trial import Outcome, Refusal, run_program

FEATURES = (Feature.NAT,)
_INSTALL = "sudo apt-get install nftables"


def _table(name: str, chain: str, *rules: str) -> str:
    lines = (f"type {chain};", *rules)
    return f"table inet {name} {{\n chain c {{\n  " + "\n  ".join(lines) + "\n }\n}\n"


_PARTS = {  # each in a table of its own, so that all of them load together too
    "tables of the inet family": "table inet plain {\n}\n",
    "filter chains": _table("filters", "filter hook forward priority filter", "policy drop;", "counter"),
    "connection tracking (ct state)": _table(
        "tracking", "filter hook forward priority filter", "ct state established,related accept"
    ),
    "reject": _table("rejecting", "filter hook input priority filter", "reject"),
    "masquerade": _table("masquerading", "nat hook postrouting priority srcnat", 'oifname "lo" masquerade'),
    "port forwards (dnat)": _table(
        "forwarding", "nat hook prerouting priority dstnat", "tcp dport 443 dnat ip to 192.0.2.1:443"
    ),
    "timers of connections (ct timeout)": (
        "table inet timers {\n ct timeout t {\n  protocol udp; l3proto ip; policy = { unreplied: 30 };\n }\n"
        ' chain c {\n  type filter hook forward priority mangle;\n  ct timeout set "t"\n }\n}\n'
    ),
    "sets": "table inet sets {\n set s {\n  type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }\n }\n}\n",
}

_QUEUE = "*raw\n-A PREROUTING -d 192.0.2.1 -j NFQUEUE --queue-num 1\nCOMMIT\n"


def load_ruleset() -> str:
    """Trial: loads the rules in a fresh network namespace; if they fail, each kind alone, to name the ones missing."""
    program = programs.find("nft")
    if program is None:
        raise Refusal("nft", errno.ENOENT)
    if not (complaint := _load(program, "".join(_PARTS.values()))):
        return ""
    lacking = [name for name, ruleset in _PARTS.items() if _load(program, ruleset)]
    raise Refusal(f"not loaded: {', '.join(lacking) or 'all kinds together'} ({complaint})")


def load_queue() -> str:
    """Trial: loads the rule that hands packets to `natbox`, as `iptables-restore` is given it."""
    program = programs.find("iptables-restore")
    if program is None:
        raise Refusal("iptables-restore", errno.ENOENT)
    ended = run_program([program], _QUEUE)
    if ended.status:
        raise Refusal(next(iter(ended.complaint.splitlines()), f"exit status {ended.status}"))
    return ""


def read_flow_table() -> str:
    """Trial: reads the connection tracking table of a fresh network namespace."""
    netlink.read_flow_table()
    return ""


def firewall_findings(ruleset: Outcome, flow_table: Outcome, queue: Outcome) -> list[Finding]:
    """Findings about rules and about the table of connections."""
    return [
        finding("nftables", FEATURES, judge_ruleset(ruleset), required=True),
        finding("connection tracking", FEATURES, judge_flow_table(flow_table)),
        finding("packet queue", FEATURES, judge_queue(queue)),
    ]


def judge_ruleset(outcome: Outcome) -> Verdict:
    """The homelab has NAT in three places: without nftables there is none."""
    if outcome.ok:
        return Verdict(Status.OK, "inet tables, ct state, masquerade, dnat, reject and sets load in a fresh namespace")
    if outcome.errno == errno.ENOENT and outcome.text == "nft":
        return Verdict(Status.MISSING, "the program nft is not installed", _INSTALL)
    mend = "sudo modprobe -a nf_tables nft_ct nft_masq nft_nat nft_reject_inet"
    return Verdict(Status.MISSING, str(outcome), mend)


def judge_queue(outcome: Outcome) -> Verdict:
    """Some NATs are nothing that nftables does; natbox does them in user space."""
    if outcome.ok:
        return Verdict(Status.OK, "xt_NFQUEUE loads in a fresh namespace")
    limits = "NATs that need natbox cannot be made"
    if outcome.errno == errno.ENOENT and outcome.text == "iptables-restore":
        return Verdict(Status.MISSING, f"iptables is not installed; {limits}", "sudo apt-get install iptables")
    return Verdict(Status.MISSING, f"{outcome}; {limits}", "sudo modprobe -a nfnetlink_queue xt_NFQUEUE nft_compat")


def judge_flow_table(outcome: Outcome) -> Verdict:
    """NAT works without it; then no report can show what the kernel translated."""
    if outcome.ok:
        return Verdict(Status.OK, "the table of a fresh namespace can be read")
    return Verdict(
        Status.LIMITED,
        f"the table of connections cannot be read: {outcome}; reports show no translations",
        "sudo modprobe nf_conntrack_netlink",
    )


def _load(program: str, ruleset: str) -> str:
    """Empty if the kernel took the ruleset, else the first line of the complaint."""
    ended = run_program([program, "--file", "-"], ruleset)
    if ended.status == 0:
        return ""
    return next(iter(ended.complaint.splitlines()), f"exit status {ended.status}")
