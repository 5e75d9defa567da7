"""`python -m upcall`: the command, for those who have its script not on their path."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="python -m upcall")
