"""`python -m lab`: the command, where no script of it is installed."""

from lab.cli.main import command

if __name__ == "__main__":
    command()
