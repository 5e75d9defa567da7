"""G10: no content of the segment makes anyone read or write outside it, loop for ever, or hang.

In the interpreted life an access outside the memory, or in a hole of the file, is an IndexError, and every access is
counted: whole segments of random words are given to everything that reads them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from protocol import GEOMETRY, USUAL, Bench, StepLife
from upcall.kern import const

STEPS_MAX = 200_000
"""For each page of the pool: hostile walks go over all of it."""
ROUNDS = 16
SHORT = 128
"""Steps after which a walk gives up here, in place of WALK_MAX: more than there are pages, so it is one in a circle."""
HOLED = (4, 4, 64, 8, 4, 34, 8)
"""As the usual geometry, with two pages that do not become real with the first ones."""


@pytest.fixture
def short_walks(step_life: StepLife, monkeypatch: pytest.MonkeyPatch) -> StepLife:
    """Walks in circles are what random words lead to, and most of the time would go into them."""
    modules = [module for package in (step_life.kern, step_life.parlib) for module in vars(package).values()]
    walking = [module for module in modules if isinstance(module, ModuleType) and hasattr(module, "WALK_MAX")]
    assert len(walking) >= 6
    for module in walking:
        monkeypatch.setattr(module, "WALK_MAX", SHORT)
    return step_life


def small(rng: random.Random) -> int:
    return rng.randrange(20)


def plausible(rng: random.Random) -> int:
    """A word that looks like one of the protocol's: small parts in the places of state, generation, page and name."""
    state, gen, name = rng.randrange(8), rng.randrange(3), rng.choice([0, 0x1000, 0x1001, 0x1002, 0x2001, 0xFFFFFFFF])
    return rng.choice(
        [
            state | (gen << 8) | (name << 32),
            (rng.randrange(20) + rng.choice([0, 0, 15])) | (rng.randrange(6) << 20) | (gen << 32),
            rng.randrange(20),
            (rng.randrange(10) + 1) | (rng.choice([0, 1, 127, 128, 255]) << 32),
            2**64 - 1,
            0,
        ]
    )


def anything(rng: random.Random) -> int:
    return rng.getrandbits(64)


def scribble(bench: Bench, rng: random.Random, word: Callable[[random.Random], int], share: float) -> None:
    """Overwrites a share of all words before the arena."""
    for at in range(0, bench.at.arena, 8):
        if rng.random() < share:
            struct.pack_into("<Q", bench.buffer, at, word(rng))


def used(life: Any, rng: random.Random, *, full: bool = False) -> tuple[Bench, Any, Any, Any]:
    """A segment in the middle of things: mail waits, some is in hand, vcores run, blocks are held. `full`: its file has
    holes, and the file system no room for them."""
    bench = Bench(life, geometry=HOLED if full else GEOMETRY)
    for queue, flags in enumerate([USUAL, USUAL | const.EVENT_NOMSG, const.EVENT_SPAM_PUBLIC, USUAL]):
        bench.queue(queue, flags, own=not flags & const.EVENT_SPAM_PUBLIC, limit=6 if queue == 3 else 0)
    vc, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    for i in range(rng.randrange(12)):
        bench.send(sender, i, queue=i % 4)
    bench.mbox.take(vc.s, vc.priv)
    bench.mbox.take(other.s, bench.mbox.Cursor(8))
    bench.run(vc)
    for i in range(rng.randrange(12)):
        block = bench.arena.alloc_block(sender, 600)
        bench.event.send_event(sender, i % 4, bench.message(i, length=600, block=block), const.NO_VCORE)
    if full:
        bench.world.real_limit = 0
    return bench, vc, other, sender


def everything(bench: Bench, vc: Any, sender: Any, watcher: Any) -> list[Callable[[], object]]:
    """All that reads what others wrote."""
    s = watcher
    spin, recover_module, watch_module = bench.spin_module, bench.recover_module, bench.watch_module
    seen = watch_module.Watch()
    m, event, proc, ucq, pages, arena, vcore = (
        bench.mbox, bench.event, bench.proc, bench.ucq, bench.pages, bench.arena, bench.vcore_module,
    )  # fmt: skip

    def use_blocks() -> None:
        for mbox in (0, 8, 9):
            cur = m.Cursor(mbox)
            while at := m.take(s, cur):
                ref = bench.get(at + const.SL_BLOCK)
                if capacity := arena.block_capacity(s, ref):
                    data = arena.block_data(s, ref, capacity)
                    assert bench.at.arena <= data <= data + capacity <= bench.at.size
                    if arena.own_block(s, ref):
                        arena.free_block(s, ref)
                m.put_done(s, cur, cur.taken)

    def large() -> None:
        for length in (100, 600, 20000, 70000, 200000):
            if block := arena.alloc_block(sender, length):
                event.send_event(sender, 3, bench.message(1, length=length, block=block), const.NO_VCORE)
            msg = bench.message(1, length=length)
            if hasattr(msg, "src"):  # interpreted: Python cannot say to compiled code where bytes lie
                msg.src = bytes(length)
                if event.put_payload(sender, msg) == const.OK:
                    event.send_event(sender, 3, msg, const.NO_VCORE)

    def send() -> None:
        for queue in (0, 1, 2, 3, 4, 2**64 - 1):
            for vcoreid in (0, 3, const.NO_VCORE, 2**64 - 1):
                event.send_event(sender, queue, bench.message(1), vcoreid)
        for vcoreid in (3, 4, 2**64 - 1):
            event.send_indir(sender, 3, vcoreid)

    def lists() -> None:
        proc.proc_wakeup(s)
        proc.start_one_more(s, 0)
        proc.proc_preempt_all(s)
        proc.proc_lock(s)
        proc.proc_unlock(s)
        for v in range(4):
            proc.startcore(s, v)
            proc.proc_preempt_core(s, v)
            if v == 2:
                recover_module.host_vcore(s, v)  # one: each settles the whole segment
            proc.vcore_online(s, v)
            proc.proc_yield(s, v)
            proc.unhost_vcore(s, v)
            recover_module.preempt_vcore(s, v)
            watch_module.next_still(s, seen, v, 1 << 40, 1)
            watch_module.somebody_moves(s, seen, 1 << 40, 1)
        watch_module.watch_sleeps(s)

    def kernel_events() -> None:
        for ev_type in range(34):
            event.send_kernel_event(sender, bench.message(ev_type=ev_type), 0)
        event.send_posix_signal(sender, bench.message(), 15)
        for v in (0, 1, 3, 4, 2**63):
            event.post_vcore_event(sender, bench.message(1), v, const.EVENT_VCORE_PRIVATE)

    def drains() -> None:
        for mbox in range(bench.at.nr_mboxes):
            m.waiting_in(s, mbox, m.mbox_end(s, mbox))
            m.waiting_in(s, mbox, bench.get(bench.at.mboxes + 8))
            recover_module.mail_waits(s, mbox)
            ucq.mbox_depth(s, mbox)
            ucq.advance_head(s, mbox)
            ucq.tidy_mbox(s, mbox)

    def letters() -> None:
        dead, box = bench.dead, bench.layout.dead_mbox(bench.at)
        for mbox in (0, 3, 8, 9, box):
            cur = m.Cursor(mbox)
            while at := m.take(s, cur):
                dead.verdict(s, bench.get(at + const.SL_QUEUE, 2), dead.deaths_of(s, at))
                dead.post_letter(s, mbox, at, bench.layout.Msg())
                (m.put_back if at % 5 == 0 else dead.settle_message)(s, mbox, cur.taken)
                if mbox == box or at % 5 == 0:
                    break  # each letter of a letter is one more, and what is put back is taken again
        cur = m.Cursor(mbox)
        while m.take_like(s, cur, 0, 0):
            pass
        head = bench.get(bench.layout.mbox_at(bench.at, box) + const.MB_HEAD)
        for where in (head, head + (1 << 20), bench.get(bench.at.pages), 2**64 - 1):
            dead.resend_letter(s, where, bench.layout.Msg())
            dead.discard_letter(s, where)
        proc.tell_holders(s)

    def live() -> None:
        vcore.vcore_entry(vc)
        for _ in range(3):
            vcore.work(vc)
            watches = spin.Watches()
            n = spin.watch(vc, watches)
            if n != const.NO_VCORE:
                spin.spin(vc.s, 0, watches, n, 0)
            vcore.leave_vcore_context(vc)
            vcore.disable_notifs(vc)
            vcore.vcore_yield(vc)
        vcore.vcore_leave(vc)

    def recover() -> None:
        for v in range(4):
            recover_module.recover_vcore(s, v, 0)
        vcore.handle_vc_preempt(vc, 2)
        pages.scavenge_pages(s)
        arena.scavenge_arena(s)
        recover_module.announce(s)

    return [
        send,
        live,
        use_blocks,
        letters,
        large,
        lists,
        kernel_events,
        drains,
        recover,
        letters,
        send,
        live,
        use_blocks,
    ]


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("word", [small, plausible, anything], ids=lambda word: word.__name__)
def test_random_segment_leads_nobody_outside_or_astray(
    short_walks: StepLife, word: Callable[[random.Random], int], share: float
) -> None:
    for seed in range(ROUNDS if share < 1 else ROUNDS // 4):
        rng = random.Random(f"{word.__name__} {share} {seed}")
        bench, vc, _, sender = used(short_walks, rng, full=seed % 2 == 1)
        watcher = bench.actor()
        scribble(bench, rng, word, share)
        steps = everything(bench, vc, sender, watcher)
        rng.shuffle(steps)
        for step in steps:
            if rng.random() < 0.3:
                scribble(bench, rng, word, 0.01)
            with short_walks.steps.bounded(STEPS_MAX * bench.at.nr_pages):
                step()


@pytest.mark.parametrize("word", [small, plausible, anything], ids=lambda word: word.__name__)
def test_segment_that_changes_under_ones_feet_leads_nobody_outside(
    short_walks: StepLife, word: Callable[[random.Random], int]
) -> None:
    """What was checked may have changed when it is used: any word changes between any two accesses."""
    for seed in range(ROUNDS):
        rng = random.Random(f"{word.__name__} {seed}")
        bench, vc, _, sender = used(short_walks, rng, full=seed % 2 == 1)
        watcher = bench.actor()
        steps = short_walks.steps
        made = 0

        def change(rng: random.Random = rng, bench: Bench = bench, steps: Any = steps) -> None:
            nonlocal made
            made += 1
            assert made < 200_000, "too many accesses"
            at = rng.choice(
                [
                    bench.at.mboxes + rng.randrange(bench.at.nr_mboxes) * const.MBOX_STRIDE,
                    bench.at.pages,
                    bench.at.spans,
                    bench.at.queues,
                    bench.at.procinfo,
                    bench.at.vcoremap,
                    bench.at.vcpds,
                ]
            )
            struct.pack_into("<Q", bench.buffer, at + rng.randrange(0, 64, 8), word(rng))
            steps.before(rng.randrange(1, 40), change)

        todo = everything(bench, vc, sender, watcher)
        rng.shuffle(todo)
        for step in todo:
            steps.before(5, change)
            step()
            steps.left = -1


@pytest.mark.parametrize("word", [small, plausible, anything], ids=lambda word: word.__name__)
def test_quiet_hostile_segment_lets_a_vcore_sleep(step_life: StepLife, word: Callable[[random.Random], int]) -> None:
    """A mailbox that no protocol step wrote is not news for ever: the vcore gives its core back."""
    for seed in range(ROUNDS):
        rng = random.Random(f"{word.__name__} {seed}")
        bench, vc, _, _ = used(step_life, rng)
        for mbox in (8, 9, 11):
            at = bench.layout.mbox_at(bench.at, mbox)
            for field in (const.MB_HEAD, const.MB_TAIL, const.MB_RESCAN, const.MB_UNLINKED):
                if rng.random() < 0.7:
                    bench.set(at + field, word(rng))
        for page in range(1, 17):
            for field in (const.PG_WORD, const.PG_NEXT, const.PG_SEQ):
                if rng.random() < 0.4:
                    bench.set(bench.layout.page_at(bench.at, page) + field, word(rng))
            for i in range(4):
                if rng.random() < 0.2:
                    at = bench.layout.page_at(bench.at, page) + const.PAGE_HEADER + i * const.SLOT_SIZE
                    bench.set(at, word(rng))
        with step_life.steps.bounded(STEPS_MAX * bench.at.nr_pages):
            for _ in range(30):
                bench.vcore_module.work(vc)
                if bench.vcore_module.vcore_yield(vc):
                    break
            else:
                raise AssertionError(f"seed {seed}: the vcore never sleeps")


def test_an_event_of_no_queue_lets_nobody_answer_for_one(life: Any) -> None:
    """A slot's queue number leads to a word that is changed around each handler."""
    bench = Bench(life)
    bench.queue(0)
    vc = bench.vcore(0)
    bench.send(bench.actor(), 1)
    cur = bench.mbox.Cursor(8)
    assert bench.mbox.take(vc.s, cur)
    before = bytes(bench.buffer[bench.at.mboxes : bench.at.size])
    for queue in (bench.at.max_queues, 65534, 2**64 - 1):
        bench.vcore_module.before_handler(vc, cur, queue, True)
        bench.vcore_module.after_handler(vc, queue, True)
        bench.vcore_module.poll_queue(vc, queue)
        bench.vcore_module.stop_polling(vc, queue)
    assert bytes(bench.buffer[bench.at.mboxes : bench.at.size]) == before


def test_an_indirection_for_a_vcore_that_is_none_is_told_to_one_that_is(life: Any) -> None:
    """A type's bit in place of a message, and the end of `send_many`, pass on the vcore that stands in the queue."""
    bench = Bench(life)
    bench.queue(0)
    vc, sender = bench.vcore(0), bench.actor()
    for vcoreid in (bench.at.max_vcores, 0xFFFFFFFF, 2**64 - 1):
        bench.set(bench.layout.evq_at(bench.at, 0) + const.EVQ_ALERT, 0)
        bench.event.send_indir(sender, 0, vcoreid)
        assert bench.mbox.take(vc.s, vc.pub)


def test_a_block_that_shrinks_before_it_is_written_stays_within_its_bounds(step_life: StepLife) -> None:
    """Its span gets another class between the sender's claim and its copy."""
    for before in range(60):
        bench = Bench(step_life)
        bench.queue(0)
        sender, msg = bench.actor(), bench.message(1, length=20000)
        msg.src = bytes(20000)

        def shrink(bench: Bench = bench) -> None:
            for span in range(bench.at.nr_spans):
                at = bench.layout.span_at(bench.at, span)
                bench.set(at, const.SPAN_SMALL | (bench.get(at) & ~0xFF))

        step_life.steps.before(before, shrink)
        status = bench.event.put_payload(sender, msg)
        step_life.steps.left = -1
        assert (status == const.OK) == (msg.block != 0)


def test_hostile_segment_does_not_crash_the_compiled_life(lives: Any) -> None:
    """The same, where an access far outside ends the test run, and a loop its time."""
    bench = Bench(lives("compiled"))
    for seed in range(ROUNDS):
        rng = random.Random(seed)
        bench.buffer[:] = bytes(len(bench.buffer))
        bench.actors = 0
        bench.set(bench.at.procinfo + const.PI_NUM_VCORES, 4)
        for queue in range(4):
            bench.queue(queue)
        vc, sender, watcher = bench.vcore(0), bench.actor(), bench.actor()
        for i in range(10):
            bench.send(sender, i, queue=i % 4)
        word = rng.choice([small, plausible, anything])
        scribble(bench, rng, word, rng.choice([0.02, 0.3]))
        for step in everything(bench, vc, sender, watcher):
            step()
