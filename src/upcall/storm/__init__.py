"""`upcall storm`: processes are killed and stopped at random, again and again, and then the books are checked.

`ledger` the book-keeping that no death undoes, `target` the process under fire, `sender` who feeds it, `killer` who kills
and stops them all, `storm` one run of it, `settle` its end with a watchdog, `check` what the books say, `leftovers` what
is left in the segment, `peers` and `tries` the same for other systems, `show` what is printed. Here: the two commands.
"""

from __future__ import annotations

from .storm import Plan, run
from .tries import run_peers

__all__ = ["Plan", "run", "run_peers"]
