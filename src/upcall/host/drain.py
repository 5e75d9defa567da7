"""Waiting until everything sent so far has been handled."""

from __future__ import annotations

import time

from ..front import port
from ..kern import const
from ..kern.event import get_vcpd_mbox_priv, get_vcpd_mbox_pub
from ..kern.layout import Seg, evq_at, map_at, vcpd_at
from ..kern.proc import startcore
from ..parlib.mbox import has_bits, mbox_end, waiting_in
from .handle import Handle
from .tables import queues


def drain(handle: Handle, timeout: float | None) -> list[int]:
    """Returns when every event sent before the call has been handled; the vcores whose private mail was left out, because
    nobody hosts them. TimeoutError past `timeout` seconds, naming what still waits."""
    segment, seg = handle.segment, handle.thread().seg
    ends = {box: mbox_end(seg, box) for box in _boxes(handle)}
    deadline = None if timeout is None else time.monotonic() + timeout
    at = seg.procinfo + const.PI_DRAINERS
    port.add_word(seg, at, 1)
    try:
        while True:
            handle.check_open()  # a signal handler may fork, or close it
            # Counted in, then the sequence word (an acquire), then the look: pairs with the fence in `tell_drainers`.
            seen = segment.u32(seg.procinfo + const.PI_DRAIN_SEQ)
            left_out = [v for v in range(seg.max_vcores) if _unhosted(handle, v)]
            skip = {get_vcpd_mbox_priv(seg, v) for v in left_out}
            # A bit is in a hand before it leaves its mailbox, and back there before a dead host's hand is emptied: the
            # hands are looked at on both sides of the mailboxes.
            hands = _hands(handle)
            waiting = [box for box, end in ends.items() if box not in skip and _waits(seg, box, end)]
            hands += _hands(handle)
            if not waiting and not hands:
                return [v for v in left_out if waiting_in(seg, get_vcpd_mbox_priv(seg, v), 0)]
            # A spammed message may lie with several vcores: one that sleeps on a copy handles it when it is given a core.
            for box in waiting:
                if box < 2 * seg.max_vcores:
                    startcore(seg, box // 2)
            left = -1 if deadline is None else int((deadline - time.monotonic()) * 1e9)
            if deadline is not None and left <= 0:
                raise TimeoutError(
                    f"{handle.name!r} still has events in {_names(handle, waiting, hands)} after {timeout} s"
                )
            port.wait_word(seg, seg.procinfo + const.PI_DRAIN_SEQ, seen, left)
    finally:
        port.add_word(seg, at, -1)


def _boxes(handle: Handle) -> list[int]:
    """The mailboxes that are in use: the queues' and the vcores'."""
    seg = handle.segment.seg
    own = [handle.segment.u32(evq_at(seg, q) + const.EVQ_MBOX) - 1 for q in queues(handle.segment)]
    of_vcores = [box(seg, v) for v in range(seg.max_vcores) for box in (get_vcpd_mbox_pub, get_vcpd_mbox_priv)]
    return [box for box in dict.fromkeys(own + of_vcores) if 0 <= box < seg.nr_mboxes]


def _waits(seg: Seg, box: int, end: int) -> bool:
    # An end of 0: it held no message. The bits, not `check_bits`: that is cleared before they are read.
    return (end != 0 and waiting_in(seg, box, end)) or has_bits(seg, box)


def _hands(handle: Handle) -> list[int]:
    """The vcores whose host has a bit in hand. Hosted or not: one that is dead, or has left, may have it still."""
    segment = handle.segment
    return [v for v in range(segment.seg.max_vcores) if segment.u64(vcpd_at(segment.seg, v) + const.VCPD_BIT)]


def _unhosted(handle: Handle, v: int) -> bool:
    return handle.segment.u64(map_at(handle.segment.seg, v)) & 15 == const.VC_NOHOST


def _names(handle: Handle, boxes: list[int], hands: list[int]) -> str:
    seg = handle.segment.seg
    of_queues = {
        handle.segment.u32(evq_at(seg, q) + const.EVQ_MBOX) - 1: f"queue {n!r}"
        for q, n in queues(handle.segment).items()
    }
    named = [of_queues.get(box, f"the {'private' if box % 2 else 'public'} mail of vcore {box // 2}") for box in boxes]
    return ", ".join(named + [f"the hands of vcore {v}" for v in dict.fromkeys(hands)])
