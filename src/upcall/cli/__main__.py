"""`python -m upcall.cli`."""

from . import main

main(prog_name="upcall")
