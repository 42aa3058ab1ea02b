"""A plan made real: the supervisor that is the lab, and the client's view of a running one."""
