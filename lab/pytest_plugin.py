"""The pytest plugin of the lab."""
