"""Names of attached threads: who lives, asked of the kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from procs import ended, forked
from upcall.host.segment import Geometry, Segment, create, open_segment, remove
from upcall.host.slots import NAME_LOCKS, try_lock, unlock
from upcall.inspect import Reader
from upcall.kern import const
from upcall.kern.layout import name_of, slot_record_at
from upcall.kern.pages import name_is_dead


@pytest.fixture
def box() -> Iterator[Segment]:
    """An open segment, its slot 1 the test's own."""
    made = create("box", Geometry.for_memory(1, 1 << 20))
    made.attach(const.ROLE_READER)
    yield made
    remove(made)
    made.close()


def killed_owner() -> None:
    open_segment("box").attach(const.ROLE_SENDER)
    os.kill(os.getpid(), 9)


def name_in(segment: Segment, slot: int) -> int:
    word = segment.u64(slot_record_at(segment.seg, slot) + const.AS_WORD)
    return name_of(slot, word & const.SLOT_GEN_MASK)


def shown_alive(slot: int) -> bool:
    with Reader("box") as reader:
        return reader.alive(slot)


def test_a_name_lives_until_its_thread_gives_it_back(box: Segment) -> None:
    other = open_segment("box")
    seg = other.attach(const.ROLE_SENDER)
    assert not name_is_dead(box.seg, seg.me)
    assert shown_alive(seg.my_slot)
    other.detach(seg)
    assert name_is_dead(box.seg, seg.me)
    assert not shown_alive(seg.my_slot)
    other.close()


def test_a_dead_name_stays_dead_while_its_slot_is_taken_again(box: Segment) -> None:
    """Its next owner may be stopped between the slot's lock and the generation: recovery must not wait for that."""
    assert ended(forked(killed_owner)) == -9
    dead = name_in(box, 2)
    assert name_is_dead(box.seg, dead)
    assert try_lock(box.slots.fd, 2)
    assert name_is_dead(box.seg, dead)
    assert not shown_alive(2)
    unlock(box.slots.fd, 2)
    seg = box.attach(const.ROLE_SENDER, slot=2)
    assert name_is_dead(box.seg, dead)
    assert not name_is_dead(box.seg, seg.me)


def test_a_name_that_a_stranger_has_locked_is_not_used(box: Segment) -> None:
    other = open_segment("box")
    assert try_lock(other.slots.fd, NAME_LOCKS + name_of(2, 1))
    assert box.attach(const.ROLE_SENDER).my_slot == 3
    other.close()
    assert box.attach(const.ROLE_SENDER).my_slot == 2
