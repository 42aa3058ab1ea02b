"""Whatever dies, whenever: nothing of a lab is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kill_points.py"


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.alone
def test_nothing_is_left_after_kills_at_random_moments() -> None:
    """Alone, for it takes the labs of other tests for leftovers."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--runs", "50"], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 kills, nothing left behind" in done.stdout
