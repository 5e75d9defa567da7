"""Attach slots: taken, given back, taken again from the dead, by the host layer's own code (`host/slots`) over locks that
are words of the scenario. Who asks by name whether somebody lives gets the truth, whoever has the slot by now."""

from __future__ import annotations

from ...host.slots import NAME_LOCKS, SlotTable
from ...kern import const
from ..plan import Scenario, Word
from ..process import DIED, Process
from ..verdict import State
from .cases import case, variants

SLOT = 1
"""The only slot that there is for them."""
HOLDER = 100
"""The number of a lock's holder, above those of slots: HOLDER + i is actor i."""


class Locks:
    """The kernel's byte locks, as one actor has them: each is a word with its holder's number, and falls with its death. A
    segment's `world`, too, for who asks whether a name's owner lives."""

    def __init__(self, s: Scenario, words: dict[int, Word], actor: int) -> None:
        self.s, self.words, self.me = s, words, HOLDER + actor
        self.check_key = ("locks", actor)

    def held(self, byte: int) -> bool:
        """Whether somebody who lives has it."""
        who = self.words[byte].load(acquire=True)
        return who != 0 and self.s.alive(who)

    def take(self, byte: int) -> bool:
        """Takes it if nobody who lives has it."""
        who = self.words[byte].load(acquire=True)
        if who != 0 and self.s.alive(who):
            return False
        return self.words[byte].cas(who, self.me)

    def drop(self, byte: int) -> None:
        """Lets it go."""
        self.words[byte].exchange(0)

    def alive(self, name: int) -> bool:
        """As the machine's `alive`."""
        return self.held(NAME_LOCKS + name)


class Memory:
    """A segment, as the host layer reads and writes it; but for their words, nobody looks into slots here."""

    locks = -1

    def __init__(self, p: Process) -> None:
        self.door, self.mem = p.life.machine.door, p.at.mem
        self.check_key = "memory of slots"

    def u64(self, at: int) -> int:
        return self.door.lda64(self.mem, at)  # type: ignore[no-any-return]

    def put_u32(self, at: int, value: int) -> None:
        """A pid, or a thread's."""

    def put_u64(self, at: int, value: int) -> None:
        if at % const.SLOT_STRIDE == const.AS_WORD:
            self.door.str64(self.mem, at, value)


class Slots(SlotTable):
    """One actor's slots."""

    def __init__(self, p: Process, locks: Locks) -> None:
        super().__init__(Memory(p), 0, SLOT + 1)  # type: ignore[arg-type]
        self._at = p.at.slots
        self.locks = locks

    def _lock(self, byte: int) -> bool:
        return self.locks.take(byte)

    def _unlock(self, byte: int) -> None:
        self.locks.drop(byte)

    def take_name(self) -> int:
        """A name; 0: the slot is somebody's."""
        found = self._take(const.ROLE_SENDER, None)
        return 0 if found is None else found[0] | found[1] << 12


class Attached:
    """A process with one slot, the locks of it and of its next names, and a word for each actor in which it claims
    something under its name."""

    def __init__(self, s: Scenario, actors: int, names: int = 4) -> None:
        self.s = s
        self.p = Process(s)
        assert self.p.at.slots % const.SLOT_STRIDE == 0
        self.words = {SLOT: s.word("the slot's lock")}
        for gen in range(1, names):
            name = self.name(gen)
            self.words[NAME_LOCKS + name] = s.word(f"the lock of name {name:x}")
        self.claims = [s.word(f"what actor {i} has claimed") for i in range(actors)]
        self.p.attached = SLOT + 1  # whoever else is there has another slot

    @staticmethod
    def name(gen: int) -> int:
        """The slot's name in a generation."""
        return SLOT | gen << 12

    def comes_and_goes(self, who: str, *, mortal: bool) -> None:
        """An actor that attaches, claims something, gives it up again, and detaches."""
        s, number = self.s, len(self.s.bodies)
        slots, claim = Slots(self.p, Locks(s, self.words, number)), self.claims[number]

        def lives() -> None:
            name = slots.take_name()
            if name == 0:
                return
            s.note("named", name)
            claim.exchange(
                name
            )  # in the protocol, too, what claims is a read-modify-write, which publishes all before it
            assert claim.cas(name, 0), "G4: what it has claimed was taken from one that lives"
            slots.give_back(SLOT)
            s.note("left")

        s.actor(lives, name=who, slot=HOLDER + number, mortal=mortal)

    def sweeper(self, who: str, of: int, *, after: int | None = None) -> None:
        """An actor that takes back what actor `of` has claimed, if that is dead."""
        s, number, p = self.s, len(self.s.bodies), self.p
        seg, claim, name_is_dead = p.attach(), self.claims[of], p.kern.pages.name_is_dead
        seg.world = Locks(s, self.words, number)

        def sweeps() -> None:
            if after is not None:
                s.rest(after)
            name = claim.load(acquire=True)
            if name != 0 and name_is_dead(seg, name):
                claim.cas(name, 0)

        s.actor(sweeps, name=who, slot=HOLDER + number, mortal=False)

    def names_are_used_once(self) -> None:
        """G4: no two are ever attached under one name."""

        @self.s.always
        def check(state: State) -> None:
            for what, times in state.notes.items():
                assert what[0] != "named" or times < 2, f"G4: two have had the name {what[1]:x}"

    def nothing_is_left(self, of: int, who: str) -> None:
        """G4: what a dead one had claimed is taken back by who looks after its death."""

        @self.s.at_end
        def check(state: State) -> None:
            if state.dead(of) and state.ended(state.names.index(who)):
                assert self.claims[of].get(state) == 0, "G4: a dead name passes for one that lives"


def attached_again(s: Scenario, *, bare: bool = False) -> None:
    """A slot is given back, or its owner dies, and another has it: the former name is dead, the new one lives."""
    a = Attached(s, 2)
    a.comes_and_goes("one", mortal=True)
    a.comes_and_goes("two", mortal=False)
    if not bare:
        a.sweeper("sweeper", 1)
    a.sweeper("watcher of one", 0, after=DIED + 0)
    a.names_are_used_once()
    a.nothing_is_left(0, "watcher of one")


variants(attached_again, ("G4",), {"by_two": {"bare": True}, "under_a_sweep": {}}, deaths=1)


@case("G4", "G11")
def detached_under_a_sweep(s: Scenario) -> None:
    """Somebody asks whether a name is dead while its owner detaches, and another attaches: neither loses what it claims."""
    a = Attached(s, 2)
    a.comes_and_goes("one", mortal=False)
    a.comes_and_goes("two", mortal=False)
    a.sweeper("sweeper of one", 0)
    a.sweeper("sweeper of two", 1)
    a.names_are_used_once()

    @s.at_end
    def free(state: State) -> None:
        assert state.count("left"), "G11: nobody could attach"
        word = state.get(a.p.kern.layout.slot_record_at(a.p.at, SLOT) + const.AS_WORD)
        assert word >> 32 == 0, "G4: a slot that was given back says that somebody is attached"
        assert not any(lock.get(state) for lock in a.words.values()), "G4: whoever has detached has a lock still"


@case("G4")
def buried_before_its_lock_falls(s: Scenario) -> None:
    """Its parent has seen it die, a child that it was just forking has its lock still: its name is dead all the same.

    The next owner's lives."""
    a = Attached(s, 3)
    p, child = a.p, 2
    name = a.name(1)
    record = p.kern.layout.slot_record_at(p.at, SLOT) + const.AS_WORD
    p.set(record, 1 | 1 << 32)
    for byte in (SLOT, NAME_LOCKS + name):
        s.memory[a.words[byte].offset >> 3] = HOLDER + child
    s.memory[a.claims[0].offset >> 3] = name
    seg, bury_name, name_is_dead = p.attach(), p.kern.pages.bury_name, p.kern.pages.name_is_dead
    seg.world = Locks(s, a.words, 0)

    def buries() -> None:
        bury_name(seg, name)
        assert name_is_dead(seg, name), "G4: a dead name passes for one that lives"
        assert a.claims[0].cas(name, 0)

    s.actor(buries, name="parent", slot=HOLDER)
    a.comes_and_goes("next", mortal=False)
    locks = Locks(s, a.words, child)

    def lets_go() -> None:
        locks.drop(NAME_LOCKS + name)
        locks.drop(SLOT)

    s.actor(lets_go, name="child", slot=HOLDER + child)
    a.sweeper("sweeper of next", 1)
    a.names_are_used_once()

    @s.always
    def not_the_dead_ones(state: State) -> None:
        assert not state.count("named", name), "G4: the next owner has the dead one's name"
