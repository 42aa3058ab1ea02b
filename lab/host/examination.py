"""The examination of a host: every question asked at once, in children, and the answers judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from lab.host import filesystems, firewall, ipv6, kernel, limits, links, namespaces, services, subordinate_ids, trial
from lab.host.facts import HostFacts, read_facts
from lab.host.finding import Finding, Status

TIME_FOR_TRIALS = 12.0  # seconds, for all of them: they run side by side, and only one that hangs takes so long


def examine() -> tuple[Finding, ...]:
    """All that the lab asks about its host, tried for real; it leaves nothing behind.

    The trials run in forked children, in the namespaces that `lab up` would make. A child that hangs or dies is a
    finding, never an exception. Call it from a process that runs no other threads.
    """
    facts = read_facts()
    sources = subordinate_ids.read_sources(facts)
    outcomes = _run_trials(facts, sources)
    base = namespaces.namespace_findings(outcomes["namespaces"], facts)
    tried = [
        *filesystems.filesystem_findings(outcomes["proc"], outcomes["sysfs"], outcomes["tmpfs"], facts),
        *links.link_findings(
            veth=outcomes["veth"],
            bridge=outcomes["bridge"],
            tap=outcomes["tap"],
            netem=outcomes["netem"],
            token_bucket=outcomes["token_bucket"],
            wireguard=outcomes["wireguard"],
        ),
        *firewall.firewall_findings(outcomes["ruleset"], outcomes["flow_table"], outcomes["queue"]),
        ipv6.ipv6_finding(outcomes["ipv6"], facts),
    ]
    if any(each.status in (Status.MISSING, Status.NOT_TRIED) for each in base):
        tried = [_not_tried(each) for each in tried]
    return (
        kernel.kernel_finding(),
        *base,
        subordinate_ids.subordinate_id_finding(outcomes["user_ids"], facts, sources),
        *tried,
        *limits.limit_findings(facts),
        *services.program_findings(),
        services.stream_finding(outcomes["stream_module"]),
    )


_IN_NAMESPACES: dict[str, Callable[[], str]] = {
    "namespaces": namespaces.live_in_them,
    "proc": filesystems.mount_proc,
    "sysfs": filesystems.mount_sysfs,
    "tmpfs": filesystems.mount_tmpfs,
    "veth": links.make_veth,
    "bridge": links.make_bridge,
    "tap": links.make_tap,
    "netem": links.make_netem,
    "token_bucket": links.make_token_bucket,
    "wireguard": links.make_wireguard,
    "ruleset": firewall.load_ruleset,
    "queue": firewall.load_queue,
    "flow_table": firewall.read_flow_table,
    "ipv6": ipv6.take_ipv6_address,
}


def _run_trials(facts: HostFacts, sources: tuple[subordinate_ids.IdSource, ...]) -> dict[str, trial.Outcome]:
    deadline = time.monotonic() + TIME_FOR_TRIALS
    running: dict[str, trial.Trial] = {}
    try:
        for name, action in _IN_NAMESPACES.items():
            running[name] = trial.begin(action, namespaces=True, user_namespace=facts.needs_user_namespace)
        map_many = partial(subordinate_ids.map_many, facts, sources)
        for name, action in (("user_ids", map_many), ("stream_module", services.find_stream_module)):
            running[name] = trial.begin(action, namespaces=False, user_namespace=False)
        return {name: each.outcome(deadline) for name, each in running.items()}
    finally:
        for each in running.values():
            each.stop()


def _not_tried(each: Finding) -> Finding:
    return replace(each, status=Status.NOT_TRIED, found="the namespaces that it would be tried in are missing", mend="")
