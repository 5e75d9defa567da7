"""The watcher's look at vcores that do not move: stopped ones (SIGSTOP, a frozen group) and ones that hang in a handler.

Whoever has the role (the supervisor) calls `look` when `fileno()` is readable, and when the seconds that the last `look`
returned are over. While any vcore runs that is every half of `preempt_after_ms`; when none has run for LINGER_S it is
never, until whoever makes a vcore run writes a byte: a process with nothing to do is not watched, and costs nothing.

A vcore that has not moved for `preempt_after_ms` while mail waits is preempted, if another could take over: its mailbox and
indirections go to others, the event in its hands stays there. With `on_hang="kill"` a host that has not come back after as
long again is killed; then its event is handled again, as after any death.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable

from ..kern import const
from ..kern.layout import Seg, map_at, vcpd_at
from ..parlib.recover import preempt_vcore
from ..parlib.watch import Watch, next_still, somebody_moves, watch_sleeps, watch_wakes
from .definition import Definition
from .segment import Segment

log = logging.getLogger("upcall")
LINGER_S = 0.2
"""The watcher goes on looking for so long after the last vcore has stopped: waking it costs a sender a system call."""


class Watcher:
    """Looks at the vcores of one process. `kill` is called with a vcore's number to end its host (None: nobody
    can)."""

    def __init__(self, segment: Segment, seg: Seg, definition: Definition, kill: Callable[[int], None] | None) -> None:
        self.segment = segment
        self.seg = seg
        self.after_ns = int(definition.preempt_after_ms * 1e6)
        self.kill = kill if definition.on_hang == "kill" else None
        self.seen = Watch()
        self.away: dict[int, int] = {}  # vcore -> when (ns) it was preempted
        self.quiet_since: float | None = None
        self.heard = False
        """Whether the last look has emptied the FIFO."""
        # For both ends: with no writer it would be readable for ever.
        path = str(segment.path / "watch")
        self.fifo = segment.attachment.open_file(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)

    def fileno(self) -> int:
        """Readable when somebody has made a vcore run while this watcher slept."""
        return self.fifo

    def look(self) -> float | None:
        """One look. Returns after how many seconds the next one is due; None: when `fileno()` is readable."""
        self.heard = False
        with contextlib.suppress(BlockingIOError):
            self.heard = bool(os.read(self.fifo, 4096))
        watch_wakes(self.seg)
        now = time.monotonic_ns()
        v = next_still(self.seg, self.seen, 0, now, self.after_ns)
        while v != const.NO_VCORE:
            self._still(v, now)
            v = next_still(self.seg, self.seen, v + 1, now, self.after_ns)
        self._kill_the_late(now)
        return self._next_look()

    def _still(self, v: int, now: int) -> None:
        """A vcore has not moved while mail waits."""
        if self.kill is None and not somebody_moves(self.seg, self.seen, now, self.after_ns):
            return
        if preempt_vcore(self.seg, v):
            self.away[v] = now
            at = vcpd_at(self.seg, v) + const.VCPD_TAKEN_OVER
            self.segment.put_u64(at, self.segment.u64(at) + 1)
            log.info(
                "%s/vcore %d: has not moved for %.0f ms while mail waits: others take over",
                self.segment.name, v, self.after_ns / 1e6,
            )  # fmt: skip

    def _kill_the_late(self, now: int) -> None:
        """Ends hosts that were preempted and have not come back, if the program wants that."""
        for v, since in list(self.away.items()):
            if self.segment.u64(map_at(self.seg, v)) & 15 != const.VC_AWAY:
                del self.away[v]
            elif self.kill is not None and now - since >= self.after_ns:
                del self.away[v]
                log.warning(
                    "%s/vcore %d: has not moved for %.0f ms while mail waits: killed (on_hang='kill')",
                    self.segment.name, v, 2 * self.after_ns / 1e6,
                )  # fmt: skip
                self.kill(v)

    def _next_look(self) -> float | None:
        if not watch_sleeps(self.seg):
            self.quiet_since = None
        elif self.quiet_since is None:
            self.quiet_since = time.monotonic()
        elif time.monotonic() - self.quiet_since >= LINGER_S:
            return None
        watch_wakes(self.seg)
        return max(0.002, self.after_ns / 2e9)

    def close(self) -> None:
        """Looks no more. Whoever comes next looks by itself."""
        watch_wakes(self.seg)
        self.segment.attachment.close_file(self.fifo)
