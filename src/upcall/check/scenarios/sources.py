"""The table of sources: makers, firers, cancellers and readers that meet in one record, and die there."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import DIED, Process
from ..verdict import State
from .cases import case, variants
from .properties import Quiet

SENT = 59
"""An interrupt that nobody waits for: one more moment at which a firer may die, its event sent."""
TOLD = 58
"""Interrupt: the watcher looks at the table."""


def make(p: Process, seg: Any, value: int) -> int:
    """Makes a source whose fields all say the same, as an actor or while laying out; its id."""
    table = p.kern.source
    index = table.claim_source(seg)
    table.write_source(seg, index, const.KIND_ALARM, const.EV_ALARM, 0, 0, value, value, value, value)
    return table.set_source(seg, index)  # type: ignore[no-any-return]


def records(p: Process, state: State) -> list[tuple[int, int, int]]:
    """(state, generation, owner's name) of the records that were ever used, from the first on."""
    found = []
    index = 0
    while word := state.get(p.kern.layout.source_at(p.at, index) + const.SR_WORD):
        found.append((word & 15, word >> 8 & const.GEN_MASK, word >> 32))
        index += 1
    return found


def field(p: Process, state: State, index: int, at: int) -> int:
    return state.get(p.kern.layout.source_at(p.at, index) + at)


def maker(p: Process, name: str, value: int, *, mortal: bool = False, after: str = "") -> None:
    """An actor that makes a source, and tells the watcher; `after`: when this one has died."""
    seg, s = p.attach(), p.s
    died = DIED + s.names.index(after) if after else 0

    def makes() -> None:
        if after:
            s.rest(died)
        make(p, seg, value)
        s.interrupt(TOLD)

    s.actor(makes, name=name, slot=seg.my_slot, mortal=mortal)


@case("G1", "G3")
def sources_made_at_once(s: Scenario) -> None:
    """Two make a source: each has a record of its own, whole."""
    p = Process(s)
    maker(p, "one", 1)
    maker(p, "two", 2)

    @s.at_end
    def whole(state: State) -> None:
        found = records(p, state)
        assert [each[0] for each in found] == [const.SOURCE_SET] * 2, f"G1: two sources were made: {found}"
        values = [{field(p, state, i, at) for at in (const.SR_VALUE, const.SR_BASE, const.SR_PID)} for i in (0, 1)]
        assert values in ([{1}, {2}], [{2}, {1}]), f"G3: half of one source, half of another: {values}"


@case("G3", "G4", deaths=1)
def maker_of_a_source_dies(s: Scenario) -> None:
    """A maker dies at any access, another makes one then: the dead one's is there, whole, or its record is used again."""
    p = Process(s)
    maker(p, "dies", 1, mortal=True)
    maker(p, "next", 2, after="dies")

    @s.at_end
    def used_again(state: State) -> None:
        if not state.ended(s.names.index("next")):
            return
        for index, (now, _, _) in enumerate(records(p, state)):
            assert now == const.SOURCE_SET, f"G4: record {index} is kept by a dead maker"
            values = {field(p, state, index, at) for at in (const.SR_VALUE, const.SR_BASE, const.SR_PID)}
            assert len(values) == 1, f"G3: half a source: {values}"


def firer(
    p: Process, name: str, ident: int, then: int, *, mortal: bool = False, before: str = "", times: int = 1
) -> None:
    """An actor that sends a source's event if that is its to send, and is due: once. `before`: and looks once more when
    this one has died."""
    seg, s, table, d = p.attach(), p.s, p.kern.source, p.life.machine.door
    count = p.kern.layout.source_at(seg, ident & 0xFFFF) + const.SR_COUNT
    died = DIED + s.names.index(before) if before else 0

    def fire() -> None:
        if table.begin_firing(seg, ident):
            due = then != const.SOURCE_SET or d.ld64(seg.mem, count) & 0xFF == 0
            if due:
                s.note("sent")
                s.interrupt(SENT)
            table.end_firing(seg, ident, int(due), then)

    def fires() -> None:
        i = 0
        while i < times:
            fire()
            i += 1
        if before:
            s.rest(died)
            fire()

    s.actor(fires, name=name, slot=seg.my_slot, mortal=mortal)


def fired_by_two(s: Scenario, *, then: int = const.SOURCE_FREE, dies: bool = False) -> None:
    """Two watchers come to a source that is due: one sends its event; the other too only if the first has died."""
    p = Process(s)
    ident = make(p, p.attach(), 1)
    firer(p, "one", ident, then, mortal=dies)
    firer(p, "two", ident, then, before="one" if dies else "")

    @s.always
    def once(state: State) -> None:
        times = state.count("sent")
        assert times <= 1 + Quiet(p, state).deaths(), f"G5: one event was sent {times} times"

    @s.at_end
    def over(state: State) -> None:
        assert state.count("sent"), "G1: a source was due, and its event was not sent"
        now = records(p, state)[0][0]
        assert now == then, f"G4: its event was sent, and the source is in state {now}"
        assert dies or field(p, state, 0, const.SR_COUNT) & 0xFF == 1, "G5: one event, and another count"


variants(fired_by_two, ("G1", "G5"), {"who_live": {}, "who_come_again": {"then": const.SOURCE_SET}})
variants(fired_by_two, ("G1", "G4"), {"one_of_whom_dies": {"dies": True}}, deaths=1)


@case("G5")
def source_in_its_next_life(s: Scenario) -> None:
    """A source is cancelled and its record used again while its event is sent and counted: the next one is untouched."""
    p = Process(s)
    ident = make(p, p.attach(), 1)
    firer(p, "firer", ident, const.SOURCE_SET, times=2)
    seg, table = p.attach(), p.kern.source

    def cancels() -> None:
        table.drop_source(seg, ident)
        make(p, seg, 2)

    s.actor(cancels, name="canceller", slot=seg.my_slot)

    @s.at_end
    def untouched(state: State) -> None:
        (now, gen, _), count = records(p, state)[0], field(p, state, 0, const.SR_COUNT)
        assert (now, gen) == (const.SOURCE_SET, 2), f"G5: a late end of a former source: state {now}, generation {gen}"
        assert count == 2 << 40, f"G5: events of a former source are counted: {count & 0xFF}, generation {count >> 40}"


@case("G3")
def source_read_while_it_changes(s: Scenario) -> None:
    """A source is read while it is cancelled and its record used again: its own fields, or it is over."""
    p = Process(s)
    first = p.attach()
    ident = make(p, first, 1)
    make(p, first, 7)
    seg, reader, table, d = p.attach(), p.attach(), p.kern.source, p.life.machine.door

    def changes() -> None:
        table.drop_source(seg, ident)
        make(p, seg, 2)

    def reads() -> None:
        i = 0
        while i < 2:
            found = table.next_source(reader, 0)
            at = p.kern.layout.source_at(reader, found & 0xFFFF)
            value, base = d.ld64(reader.mem, at + const.SR_VALUE), d.ld64(reader.mem, at + const.SR_BASE)
            if table.source_state(reader, found) != const.SOURCE_FREE:
                wanted = 7 if found & 0xFFFF else found >> const.SOURCE_GEN_SHIFT
                assert value == base == wanted, f"G3: source {found:x} with the fields {value}, {base}"
            i += 1

    s.actor(changes, name="canceller", slot=seg.my_slot)
    s.actor(reads, name="reader", slot=reader.my_slot)


def watcher_is_told(s: Scenario, *, by: str) -> None:
    """A watcher that reads the table only when that has changed: in the end it knows what is there."""
    p = Process(s)
    first = p.attach()
    ident = make(p, first, 1)
    make(p, first, 7)
    if by == "made":
        p.kern.source.drop_source(first, ident)
        maker(p, "maker", 2)
    else:
        seg, table = p.attach(), p.kern.source

        def ends() -> None:
            if by == "dropped":
                table.drop_source(seg, ident)
            else:
                table.begin_firing(seg, ident)
                table.end_firing(seg, ident, 1, const.SOURCE_FREE)
            s.interrupt(TOLD)

        s.actor(ends, name=by, slot=seg.my_slot)
    reader, table = p.attach(), p.kern.source

    def watches() -> None:
        seen = -1
        while True:
            changes = table.source_changes(reader)
            if changes != seen:
                seen = changes
                s.note("walked", table.next_source(reader, 0))
            s.rest(TOLD)

    s.actor(watches, name="watcher", slot=reader.my_slot)

    @s.at_end
    def known(state: State) -> None:
        wanted = 2 << const.SOURCE_GEN_SHIFT if by == "made" else 1 | 1 << const.SOURCE_GEN_SHIFT
        assert state.count("walked", wanted), f"G2: a source was {by}, and the watcher does not know"


variants(watcher_is_told, ("G2",), {f"of_a_source_{by}": {"by": by} for by in ("made", "dropped", "fired")})
