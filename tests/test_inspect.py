"""Segments looked at from outside: running, left behind, damaged, hostile; and what `clean` removes."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import upcall
from upcall import inspect
from upcall.host import segment as files
from upcall.kern import const
from upcall.kern.layout import map_at, mbox_at, page_at
from upcall.parlib.recover import host_vcore

SMALL = files.Geometry(2, max_queues=4, max_types=40, max_slots=4, page_slots=7, nr_pages=6, nr_spans=2)


@pytest.fixture
def gated() -> Iterator[tuple[upcall.Proc, Callable[[int], None]]]:
    """A process whose handler of "work" waits until it is let through, and the function that lets some through."""
    read, write = os.pipe()
    proc = upcall.Proc("gated", vcores=2, memory="16 MiB")
    proc.queue("orders")
    proc.queue("others", flags=upcall.EventFlag.IPI, mailbox="vcore")

    @proc.on("work")
    def work(ev: upcall.Event) -> None:
        os.read(read, 1)

    def let(n: int) -> None:
        os.write(write, b"." * n)

    with proc:
        yield proc, let
        let(100)  # whatever a failed test has left
    os.close(read)
    os.close(write)


def kill(name: str) -> None:
    """SIGKILL to a whole process, at once: the supervisor cannot start new workers."""
    found = inspect.snapshot(name)
    assert found.pid is not None
    os.kill(found.pid, signal.SIGSTOP)
    for vcore in found.vcores:
        assert vcore.pid is not None
        os.kill(vcore.pid, signal.SIGKILL)
    os.kill(found.pid, signal.SIGKILL)
    os.waitid(os.P_PID, found.pid, os.WEXITED | os.WNOWAIT)
    for vcore in found.vcores:
        assert vcore.pid is not None
        os.waitpid(vcore.pid, 0)  # orphans are our children


@pytest.fixture
def left(gated: tuple[upcall.Proc, Callable[[int], None]]) -> Iterator[str]:
    """The segment of a killed process: three events, one of them in a dead vcore's hands or two."""
    proc, _ = gated
    with upcall.connect("gated") as remote:
        for i in range(3):
            remote.queue("orders").send("work", b"%d" % i)
    kill("gated")
    proc.stop()
    yield "gated"
    inspect.clean(discard=True)


def test_a_running_process(gated: tuple[upcall.Proc, Callable[[int], None]]) -> None:
    proc, let = gated
    with upcall.connect("gated") as remote:
        assert remote.queue("orders").send_many("work", [b"a", b"b", b"c"]) == 3
        found = inspect.snapshot("gated")
        # What is in a handler's hands is not done: all three wait, however far they have come.
        assert (found.waiting, found.queues[0].depth, found.attended) == (3, 3, True)
        assert found.pid not in (None, os.getpid())
        assert [vcore.id for vcore in found.vcores] == [0, 1]
        assert all(vcore.alive for vcore in found.vcores)
        assert found.queues[0].flags == "IPI|INDIR|FALLBACK"
        assert [slot.sent for slot in found.slots if slot.pid == os.getpid()] == [3]
        let(3)
        proc.drain(30)
        found = inspect.snapshot("gated")
        assert (found.waiting, found.queues[0].depth, found.total("handled")) == (0, 0, 3)


def test_events_of_a_queue_without_a_mailbox_are_found_in_the_vcores(
    gated: tuple[upcall.Proc, Callable[[int], None]],
) -> None:
    proc, let = gated
    with upcall.connect("gated") as remote:
        remote.queue("others").send("work")
        remote.vcore(1).send("work", private=True)
        found = inspect.snapshot("gated")
        assert (found.waiting, found.queues[1].depth, found.queues[1].mailbox) == (2, 1, None)
        assert [(vcore.pending, vcore.private) for vcore in found.vcores] == [(1, 0), (1, 1)]
        let(2)
        proc.drain(30)
        assert inspect.snapshot("gated").waiting == 0


def test_a_vcores_pid_is_its_hosts_or_none() -> None:
    """Never a former host's, and never 0: a pid is given to `kill`. The pid was a word of its own, written by the host
    after it had come online."""
    made = files.create("made", SMALL)
    try:
        made.put_u64(made.seg.procinfo + const.PI_NUM_VCORES, 1)
        seg = made.attach(const.ROLE_VCORE)
        assert _hosts("made") == [(None, False)]
        assert host_vcore(seg, 0)
        assert _hosts("made") == [(os.getpid(), True)]
        made.detach(seg)
        made.attach(const.ROLE_SENDER)  # whose pid would be wrong
        assert _hosts("made") == [(None, False)]
    finally:
        files.remove(made)
        made.close()


def _hosts(name: str) -> list[tuple[int | None, bool]]:
    return [(vcore.pid, vcore.alive) for vcore in inspect.snapshot(name).vcores]


def test_a_process_all_of_whose_vcores_sleep_waits() -> None:
    """Whoever has woken one may say RUNNING when that has slept again: `upcall ps` showed it until the next event."""
    made = files.create("made", SMALL)
    try:
        made.put_u64(made.seg.procinfo + const.PI_NUM_VCORES, 1)
        made.put_u64(made.seg.procinfo + const.PI_STATE, const.P_RUNNING_M)
        assert inspect.snapshot("made").state == "WAITING"
        made.put_u64(map_at(made.seg, 0), const.VC_ONLINE)
        assert inspect.snapshot("made").state == "RUNNING_M"
    finally:
        files.remove(made)
        made.close()


def test_json_is_plain(gated: tuple[upcall.Proc, Callable[[int], None]]) -> None:
    again = json.loads(json.dumps(inspect.snapshot("gated").to_json()))
    assert {"name", "state", "pid", "vcores", "queues", "waiting", "attended"} <= set(again)
    assert {"id", "pid", "state", "pending"} <= set(again["vcores"][0])
    assert {"name", "depth", "dead"} <= set(again["queues"][0])
    assert upcall.connect("gated").stats()["name"] == "gated"


def test_dump_decodes_the_words(gated: tuple[upcall.Proc, Callable[[int], None]]) -> None:
    proc, let = gated
    proc.queue("orders").send("work", bytes(3000))
    words = inspect.dump("gated")
    json.dumps(words)
    assert words["header"]["max_vcores"] == 16
    assert words["types"] == {"32": "work"}
    box = next(box for box in words["mailboxes"] if box["of"] == "queue 0")
    assert sum(box["slots"].values()) == 1
    assert [page["owner"] for page in words["pages"]["used"] if page["page"] in box["pages"]] == ["mailbox 32"]
    assert [(span["block_bytes"], span["blocks_held"]) for span in words["arena"]["used"]] == [(4096, 1)]
    let(1)
    proc.drain(30)


def test_what_a_killed_process_left_stays_and_is_handled_later(left: str) -> None:
    found = inspect.snapshot(left)
    assert (found.attended, found.pid, found.waiting) == (False, None, 3)
    assert not any(vcore.alive for vcore in found.vcores)
    (kept,) = inspect.clean()
    assert (kept.removed, kept.why[:13]) == (False, "3 events wait")
    proc = upcall.Proc(left, vcores=2, memory="16 MiB")
    proc.queue("orders")
    proc.queue("others", flags=upcall.EventFlag.IPI, mailbox="vcore")
    proc.on("work")(lambda ev: None)
    with proc:
        proc.drain(30)
        assert inspect.snapshot(left).total("handled") == 3
    assert not list(inspect.snapshots())


def test_discard_removes_and_says_what_is_lost(left: str) -> None:
    (gone,) = inspect.clean(discard=True)
    assert (gone.name, gone.removed, gone.lost) == (left, True, 3)
    assert inspect.clean(discard=True) == []


def test_an_attached_sender_keeps_a_segment(left: str) -> None:
    with upcall.connect(left) as remote:
        remote.queue("orders").send("work")
        (kept,) = inspect.clean(discard=True)
        assert (kept.removed, str(os.getpid()) in kept.why) == (False, True)
    assert inspect.snapshot(left).waiting == 4


def test_a_sender_that_comes_late_is_told(left: str) -> None:
    """It opened the file before it was removed, and attaches after."""
    with upcall.connect(left) as remote:
        assert inspect.clean(discard=True)[0].removed
        with pytest.raises(upcall.ProcessGone):
            remote.queue("orders").send("work")


def test_an_attended_segment_is_never_cleaned(gated: tuple[upcall.Proc, Callable[[int], None]]) -> None:
    (kept,) = inspect.clean(discard=True)
    assert (kept.removed, kept.why) == (False, f"attended by pid {inspect.snapshot('gated').pid}")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "too short"), (bytes(8192), "not an upcall segment"), (files.MAGIC + b"\1" + bytes(8192), "format 1,")],
)
def test_a_file_that_is_no_segment(upcall_dir: Path, content: bytes, says: str) -> None:
    (upcall_dir / "odd").mkdir()
    (upcall_dir / "odd" / "segment").write_bytes(content)
    with pytest.raises(upcall.SegmentError, match=says):
        inspect.snapshot("odd")
    (shown,) = inspect.snapshots()
    assert (shown.state, says in str(shown.error)) == ("DAMAGED", True)
    assert not inspect.clean()[0].removed
    (gone,) = inspect.clean(discard=True)
    assert (gone.removed, gone.lost) == (True, None)


def test_a_segment_that_is_cut_off_while_it_is_read() -> None:
    made = files.create("cut", SMALL)
    try:
        with inspect.Reader("cut") as reader:
            os.truncate(made.path / "segment", 100)
            with pytest.raises(upcall.SegmentError, match="cut off"):
                reader.refresh()
    finally:
        made.close()
        inspect.clean(discard=True)


def test_names_cannot_move_the_cursor() -> None:
    made = files.create("names", SMALL)
    try:
        made.put_text(made.seg.types + const.TYPE_PROGRAM * const.NAME_BYTES, "\x1b[2Jorder\n")
        made.put_u32(made.seg.procinfo + const.PI_NR_TYPES, 1)
        assert inspect.dump("names")["types"] == {"32": r"\x1b[2Jorder\n"}
    finally:
        made.close()
        inspect.clean(discard=True)


def test_pages_that_lead_back_end_the_walk() -> None:
    made = files.create("loop", SMALL)
    try:
        for page, after in ((1, 2), (2, 1)):
            made.put_u64(page_at(made.seg, page) + const.PG_WORD, const.PAGE_LINKED | 1 << 8)
            made.put_u64(page_at(made.seg, page) + const.PG_NEXT, after | 1 << 32)
        made.put_u64(page_at(made.seg, 1) + const.PAGE_HEADER, const.READY | 1 << 8)
        made.put_u64(mbox_at(made.seg, 4) + const.MB_HEAD, 1 | 1 << 32)
        made.put_u32(made.seg.procinfo + const.PI_NR_QUEUES, 1)
        found = inspect.snapshot("loop")
        assert (found.waiting, found.error) == (1, "mailbox 4 its pages lead back to page 1")
    finally:
        made.close()
        inspect.clean(discard=True)


def test_pages_that_leave_and_come_back_are_nothing_odd() -> None:
    """A page that is taken out, and appended to the same mailbox again while it is looked at; its old link leads on."""
    made = files.create("back", SMALL)
    try:
        for page, after in ((1, 2 | 1 << 32 | const.LINK_LEAVING), (2, 1 | 2 << 32)):
            made.put_u64(page_at(made.seg, page) + const.PG_WORD, const.PAGE_LINKED | 1 << 8 | 4 << 32)
            made.put_u64(page_at(made.seg, page) + const.PG_NEXT, after)
            made.put_u64(page_at(made.seg, page) + const.PAGE_HEADER, const.READY | 1 << 8)
        made.put_u64(mbox_at(made.seg, 4) + const.MB_HEAD, 1 | 1 << 32)
        made.put_u32(made.seg.procinfo + const.PI_NR_QUEUES, 1)
        made.put_u64(made.seg.procinfo + const.PI_PAGES_REAL, 2)
        found = inspect.snapshot("back")
        assert (found.waiting, found.error) == (2, None)
        shown = inspect.dump("back")["pages"]["used"]
        assert [(page["page"], page["leaving"]) for page in shown] == [(1, True), (2, False)]
        assert shown[0]["next"] == "page 2 slot 0 generation 1"
    finally:
        made.close()
        inspect.clean(discard=True)


@pytest.fixture(scope="module")
def hostile(upcall_dir: Path) -> Iterator[files.Segment]:
    """A small segment with nothing in it, for others to scribble in."""
    made = files.create("hostile", SMALL)
    yield made
    made.close()
    inspect.clean(discard=True)


WORDS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.integers(0, 8),
    # What looks like a place, a slot's word or a name: only these get past the first look.
    st.builds(
        lambda page, slot, gen: page | slot << 20 | gen << 32, st.integers(0, 8), st.integers(0, 9), st.integers(0, 3)
    ),
    st.builds(lambda state, gen: state | gen << 8, st.integers(0, 5), st.integers(0, 3)),
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.tuples(st.integers(0, 2**20), WORDS), max_size=60), data=st.data())
def test_nothing_in_a_segment_can_break_the_reader(
    hostile: files.Segment, words: list[tuple[int, int]], data: st.DataObject
) -> None:
    first, size = const.HEADER_SIZE, hostile.seg.tables_end + 6 * hostile.seg.page_size - const.HEADER_SIZE
    for where, word in words:
        struct.pack_into("Q", hostile.memory, first + where % (size // 8) * 8, word)
    # Queues and mailboxes are few among all these bytes: aim at them, too.
    for box in range(hostile.seg.nr_mboxes):
        hostile.put_u64(mbox_at(hostile.seg, box) + const.MB_HEAD, data.draw(WORDS))
    hostile.put_u32(hostile.seg.procinfo + const.PI_NR_QUEUES, data.draw(st.integers(0, 2**32 - 1)))
    json.dumps(inspect.snapshot("hostile").to_json())
    json.dumps(inspect.dump("hostile"))
