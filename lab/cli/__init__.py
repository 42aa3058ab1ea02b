"""The command `lab`: reads arguments, calls one function, shows what it gave, chooses the exit code."""
