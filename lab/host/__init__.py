"""What this host can do for a lab, found by trying: `examine`, and `required` for what stops the main job."""

from __future__ import annotations

from lab.host.facts import needs_user_namespace
from lab.host.finding import Feature, Finding, Status, refusal, required

__all__ = ["Feature", "Finding", "Status", "examine", "needs_user_namespace", "refusal", "required"]


def examine() -> tuple[Finding, ...]:
    """See `lab.host.examination.examine`; the trials are imported only when they are run."""
    from lab.host import examination

    return examination.examine()
