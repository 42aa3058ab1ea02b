"""Measurements of the lab against its targets and its peers, side by side in one run."""
