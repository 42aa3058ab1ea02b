"""The programs that make a mesh: what a member's service runs, with which files, when it is ready."""
