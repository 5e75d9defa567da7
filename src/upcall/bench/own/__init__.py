"""upcall itself, as one more column: the same jobs as the peers', between real processes, by the public API alone.

`running` starts and ends the processes; the rows are in `sends`, `events`, `roundtrips`, `loops`, `waking`,
`tasks` and `costs`.
"""

from __future__ import annotations

from ..peers.job import Peer
from ..sample import System
from . import costs, events, loops, roundtrips, sends, tasks, waking
from .running import NAME


def systems() -> list[System]:
    """upcall."""
    modules = (sends, events, roundtrips, loops, waking, tasks, costs)
    return [Peer(NAME, {row: measurement for module in modules for row, measurement in module.rows().items()})]
