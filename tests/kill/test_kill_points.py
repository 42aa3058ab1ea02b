"""Whatever dies, whenever: nothing of a lab is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.essential
@pytest.mark.single_id
@pytest.mark.alone
def test_nothing_is_left_after_kills_at_random_moments() -> None:
    """Alone, for it takes the labs of other tests for leftovers."""
    script = [sys.executable, "-m", "tests.kill.kill_points", "--runs", "50"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 kills, nothing left behind" in done.stdout
