"""What must hold when all is quiet, whatever the scenario: the contract's promises, as checks on a state.

A vcore is *able* if it lives, is not stopped, and sleeps or is in user code: it would look if somebody told it. Checks read
memory by themselves; they run no protocol code.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...kern import const
from ..process import Process
from ..verdict import State

OK = const.OK


class Quiet:
    """One process in one state in which nobody can do anything more."""

    def __init__(self, p: Process, state: State) -> None:
        self.p, self.at, self.state = p, p.at, state
        self.layout = p.kern.layout

    # ---- who is there --------------------------------------------------------------------------------------------

    def actor_of(self, slot: int) -> int:
        return self.p.s.slots[slot]

    def vcore_actor(self, vcoreid: int) -> int:
        return self.actor_of(self.p.hosts[vcoreid].my_slot)

    def able(self) -> list[int]:
        """The vcores that would look at mail if they were told."""
        found = []
        for v in self.p.hosts:
            actor = self.vcore_actor(v)
            if not (self.state.dead(actor) or self.state.stopped(actor) or self.state.ended(actor)):
                found.append(v)
        return found

    def unwell(self, name: int) -> str:
        """What has become of the owner of a name, if it cannot go on: "dead", "stopped" or nothing."""
        actor = self.p.s.slots.get(name & const.SLOT_MASK) if name else None
        status = "" if actor is None else self.state.status(actor)
        return status if status in ("dead", "stopped") else ""

    def deaths(self) -> int:
        return sum(self.state.dead(i) for i in range(len(self.state.names)))

    # ---- what is where -------------------------------------------------------------------------------------------

    def slots(self, mbox: int) -> Iterator[tuple[int, int]]:
        """(word, offset) of a mailbox's slots that are not EMPTY, from its head on."""
        get = self.state.get
        here = get(self.layout.mbox_at(self.at, mbox) + const.MB_HEAD)
        pages = 0
        while here & const.PAGE_MASK:
            page, gen = here & const.PAGE_MASK, here >> 32
            pages += 1
            assert pages <= self.at.nr_pages, f"mailbox {mbox} goes round in a circle"
            i = here >> 20 & 0xFFF
            while i < self.at.page_slots:
                at = self.layout.page_at(self.at, page) + const.PAGE_HEADER + i * const.SLOT_SIZE
                word = get(at)
                if word == (gen - 1 & const.GEN_MASK) << 8:
                    return
                yield word, at
                i += 1
            here = self.layout.onward(get(self.layout.page_at(self.at, page) + const.PG_NEXT))

    def messages(self, state: int) -> Iterator[tuple[int, int, int]]:
        """(arg1, owner's name, mailbox) of the program's messages whose slots are in this state."""
        for mbox in range(self.at.nr_mboxes):
            for word, at in self.slots(mbox):
                if word & 15 == state and self.state.get(at + const.SL_TYPE, 2) >= const.TYPE_PROGRAM:
                    yield self.state.get(at + const.SL_ARG1, 2), word >> 32, mbox

    def chain(self, mbox: int) -> Iterator[int]:
        here = self.state.get(self.layout.mbox_at(self.at, mbox) + const.MB_HEAD)
        while here & const.PAGE_MASK:
            yield here & const.PAGE_MASK
            link = self.state.get(self.layout.page_at(self.at, here & const.PAGE_MASK) + const.PG_NEXT)
            here = self.layout.onward(link)


# ---- the promises ----------------------------------------------------------------------------------------------------


def nothing_lost(p: Process, *, private: int | None = None, watched: bool = True) -> None:
    """G1, G2: what was sent has been handled if a vcore is able (the one that it is for, if it is private); else it still
    lies there. What is in the hands of one that is stopped stays there; `watched`: what was in dead hands does not."""

    @p.s.at_end
    def check(state: State) -> None:
        quiet = Quiet(p, state)
        able = quiet.able()
        if private is not None:
            able = [v for v in able if v == private]
        lies = {arg for arg, _, _ in quiet.messages(const.READY)}
        in_hand = {arg: quiet.unwell(name) for arg, name, _ in quiet.messages(const.TAKEN)}
        for arg, status in set(state.noted("sent")):
            if status != OK or state.count("got", arg):
                continue
            if in_hand.get(arg) == "stopped" or (in_hand.get(arg) == "dead" and not watched):
                continue
            if not able or not _somebody_looks(quiet):
                assert arg in lies or in_hand.get(arg), f"G1: event {arg} was sent, and is gone"
                continue
            raise AssertionError(f"G2: event {arg} was sent, vcore {able[0]} sleeps, and nobody will handle it")


def _somebody_looks(quiet: Quiet) -> bool:
    """Whether no vcore is stopped that still counts as running: others may rely on it until a watcher takes over."""
    for v in quiet.p.hosts:
        word = quiet.state.get(quiet.layout.map_at(quiet.at, v))
        if quiet.state.stopped(quiet.vcore_actor(v)) and word & 15 != const.VC_AWAY:
            return False
    return True


def bits_handled(p: Process, ev_type: int = const.TYPE_PROGRAM) -> None:
    """G1, G2 for events without a message: after the last send a handler has run."""

    @p.s.at_end
    def check(state: State) -> None:
        quiet = Quiet(p, state)
        sent = sum(status == OK for _, status in state.noted("sent"))
        if not sent or not quiet.able() or not _somebody_looks(quiet):
            return
        assert state.count("bit", ev_type), "G2: a bit was set, and its handler has not run"
        for mbox in range(quiet.at.nr_mboxes):
            at = quiet.layout.mbox_at(quiet.at, mbox) + const.MB_BITMAP
            left = [i for i in range(const.MB_BITMAP_WORDS) if state.get(at + i * 8)]
            assert not left, f"G2: a bit of mailbox {mbox} is set, and all sleep"


def bounded_duplicates(p: Process) -> None:
    """G4, G5: an event is handled once, and once more for each death at most."""

    @p.s.always
    def check(state: State) -> None:
        for what, times in state.notes.items():
            if times > 1 and what[0] == "got":
                most = 1 + sum(state.dead(i) for i in range(len(state.names)))
                assert times <= most, f"G5: event {what[1]} was handled {times} times"


def in_order(p: Process, *args: int) -> None:
    """G6: of one sender's messages none is in a vcore's hands, or handled, while an earlier one waits. For queues with a
    mailbox of their own, without deaths."""

    @p.s.always
    def check(state: State) -> None:
        if len([arg for arg in args if state.count("sent", arg, OK)]) < 2:
            return
        words: dict[int, int] = {}
        quiet = Quiet(p, state)
        for mbox in range(quiet.at.nr_mboxes):
            for word, at in quiet.slots(mbox):
                words[state.get(at + const.SL_ARG1, 2)] = word & 15
        waits = False
        for arg in args:
            now = words.get(arg)
            assert not (waits and now in (const.TAKEN, const.DONE)), f"G6: event {arg} was taken before an earlier one"
            waits = waits or now == const.READY


def state_is_true(p: Process) -> None:
    """G2: the process says that it waits only if none of its vcores runs."""

    @p.s.at_end
    def check(state: State) -> None:
        if state.get(p.at.procinfo + const.PI_STATE) & 0xFF != const.P_WAITING:
            return
        for v in p.hosts:
            word = state.get(p.kern.layout.map_at(p.at, v)) & 15
            assert word != const.VC_ONLINE, f"G2: the process is WAITING, and vcore {v} runs"


def only_by(p: Process, vcoreid: int) -> None:
    """G7: private mail is handled by its vcore or by nobody."""

    @p.s.always
    def check(state: State) -> None:
        for what in state.notes:
            assert what[0] != "on" or what[2] == vcoreid or not state.notes[what], f"G7: vcore {what[2]} got {what[1]}"


def at_rest(p: Process) -> None:
    """G11: whoever sends or watches comes to its end, unless it is dead or stopped; a vcore may sleep."""

    @p.s.at_end
    def check(state: State) -> None:
        for i, name in enumerate(state.names):
            if name.startswith(("vcore", "watcher")) or state.ended(i):
                continue
            assert state.dead(i) or state.stopped(i), f"G11: {name} waits for ever"


def no_claims_of_the_dead(p: Process) -> None:
    """G3, G4: once every dead actor has been settled nothing is claimed by one: no slot, no queue that it answers for, no
    vcore that it hosts."""

    @p.s.at_end
    def check(state: State) -> None:
        quiet = Quiet(p, state)
        for i, name in enumerate(state.names):
            watcher = f"watcher of {name}"
            if state.dead(i) and not (watcher in state.names and state.ended(state.names.index(watcher))):
                return
        for mbox in range(quiet.at.nr_mboxes):
            for word, _ in quiet.slots(mbox):
                held = word & 15 in (const.CLAIMED, const.TAKEN)
                assert not (held and quiet.unwell(word >> 32) == "dead"), (
                    f"G3: a slot of mailbox {mbox} has a dead owner"
                )
        for queue in range(quiet.at.max_queues):
            alert = state.get(quiet.layout.evq_at(quiet.at, queue) + const.EVQ_ALERT)
            if alert & 15 == const.ALERT_POLLED:
                assert quiet.unwell(alert >> 32) != "dead", f"G4: queue {queue} is answered for by a dead vcore"
        for v in p.hosts:
            host = state.get(quiet.layout.vcpd_at(quiet.at, v) + const.VCPD_HOST)
            assert quiet.unwell(host) != "dead", f"G4: vcore {v} is hosted by a dead actor"


def pages_conserved(p: Process) -> None:
    """Every page is free, or in one mailbox, or claimed by somebody who lives or has left it to the scavenger."""

    @p.s.at_end
    def check(state: State) -> None:
        quiet = Quiet(p, state)
        linked = [page for mbox in range(quiet.at.nr_mboxes) for page in quiet.chain(mbox)]
        assert len(linked) == len(set(linked)), f"a page is linked twice: {linked}"
        for page in range(1, state.get(quiet.at.procinfo + const.PI_PAGES_REAL) + 1):
            word = state.get(quiet.layout.page_at(quiet.at, page) + const.PG_WORD)
            bit = state.get(quiet.at.bitmap + (page - 1) // 64 * 8) >> (page - 1) % 64 & 1
            free = word & 15 == const.PAGE_FREE
            assert not (free and page in linked), f"page {page} is free, and in a mailbox"
            if not quiet.deaths() and not _any_stopped(state):
                assert free == (page not in linked), f"page {page} is neither free nor in a mailbox"
                assert bit or not free, f"page {page} is free, and nobody will find it: its bit is not set"
            elif not free and page not in linked and word & 15 == const.PAGE_CLAIMED:
                assert quiet.unwell(word >> 32), f"page {page} is claimed, and not by one that is gone"


def _any_stopped(state: State) -> bool:
    return any(state.stopped(i) for i in range(len(state.names)))


def usual(p: Process, **options: object) -> None:
    """What holds in every scenario whose messages may not repeat."""
    nothing_lost(p, **options)  # type: ignore[arg-type]
    bounded_duplicates(p)
    at_rest(p)
    pages_conserved(p)


def delivered(p: Process, flags: int) -> None:
    """What holds for one message sent with these flags: a spammed one may repeat."""
    if flags & const.EVENT_SPAM_PUBLIC:
        nothing_lost(p)
        at_rest(p)
        pages_conserved(p)
    else:
        usual(p)


def settled(p: Process) -> None:
    """What holds where actors die and are watched."""
    usual(p)
    no_claims_of_the_dead(p)


def whole_chains(p: Process, boxes: dict[int, int]) -> None:
    """Each message is in its mailbox or was taken, no page is in two mailboxes, or free and in one, and none leaves with a
    message in it. `boxes`: which message belongs where."""

    @p.s.at_end
    def check(state: State) -> None:
        quiet = Quiet(p, state)
        layout, get = quiet.layout, state.get
        linked = [page for mbox in range(p.at.nr_mboxes) for page in quiet.chain(mbox)]
        assert len(linked) == len(set(linked)), f"a page is linked twice: {linked}"
        for page in linked:
            at = layout.page_at(p.at, page)
            word = get(at + const.PG_WORD)
            assert word & 15 != const.PAGE_FREE, f"page {page} is free, and in a mailbox"
            done = get(at + const.PAGE_HEADER) == (word >> 8 & const.GEN_MASK) << 8
            assert done or not get(at + const.PG_NEXT) & const.LINK_LEAVING, f"G1: page {page} leaves with its message"
        there = {arg: mbox for arg, _, mbox in quiet.messages(const.READY)}
        for arg, status in state.noted("sent"):
            assert status == const.OK, f"G11: message {arg} is refused, and there is room"
        for arg, mbox in boxes.items():
            if state.count("sent", arg, const.OK) and not state.count("got", arg):
                assert there.get(arg) == mbox, f"G1: message {arg} is not in its mailbox"
