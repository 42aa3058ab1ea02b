"""The NAT certifier: what a router of a running lab does to packets, measured, beside what was declared of it."""
