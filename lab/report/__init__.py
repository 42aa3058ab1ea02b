"""What remains of a run: evidence that a person can read after the lab is gone."""
