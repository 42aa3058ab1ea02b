"""Whether the services of a running lab are as they should be, from what the lab says of itself."""

from __future__ import annotations

from lab.realise.message import Message

MOST_RESTARTS = 3  # of a service that is not ready: who needed more is not about to recover
_NOTABLE_RESTARTS = 2  # of one that is ready: who ends again and again is ready in between


def health(lab: Message) -> tuple[str, int]:
    """Starting, ready or degraded; and how many services are ready, or have done their work and ended."""
    checked = _with_ready_check(lab)
    states = lab["states"]
    well = sum(_is_well(state, checked) for state in states)
    if any(state["restarts"] > MOST_RESTARTS and state["state"] != "ready" for state in states):
        return "degraded", well
    if any(state["state"] in ("waiting", "starting") for state in states):
        return "starting", well
    return "ready" if well == len(states) and not lab.get("link_troubles") else "degraded", well


def troubles(lab: Message) -> list[str]:
    """A line for each cut link, and each service that failed, ended by itself not with 0, or starts again."""
    lines = [f"link {trouble}" for trouble in lab.get("link_troubles", [])]
    for state in lab["states"]:
        name = f"service {state['node']}/{state['service']}"
        if state["state"] in ("ended", "failed") and state["exit_code"] not in (0, None):
            lines.append(f"{name} ended with exit code {state['exit_code']}")
        elif state["state"] == "failed":
            lines.append(f"{name} failed")
        elif state["restarts"] and (state["state"] != "ready" or state["restarts"] >= _NOTABLE_RESTARTS):
            last = "" if state["exit_code"] is None else f", last exit code {state['exit_code']}"
            lines.append(f"{name} had to be restarted (times: {state['restarts']}{last})")
    return lines


def _is_well(state: Message, checked: set[tuple[str, str]]) -> bool:
    """Without a ready check nothing says that a service is to stay: to end with 0 is to be done."""
    if state["state"] == "ready":
        return True
    return state["state"] == "ended" and state["exit_code"] == 0 and (state["node"], state["service"]) not in checked


def _with_ready_check(lab: Message) -> set[tuple[str, str]]:
    """Services with a ready check; a lab that was started by another version of `lab` may not tell."""
    return {
        (node["name"], service["name"])
        for node in lab["nodes"]
        for service in node["services"]
        if service.get("ready_check", True)
    }
