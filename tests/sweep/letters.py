"""Events that vcores have died with: whoever has a batch in hand, makes dead letters of events, or sends or throws those
away, dies or stops."""

from __future__ import annotations

from collections.abc import Callable

from sweep.host import Host
from sweep.ledger import content
from sweep.scene import Scene, Strike
from sweep.senders import LARGE, SMALL
from sweep.victim import Fate, Victim
from sweep.world import SETUP, World
from upcall.host.dead import discard_letters, read_letters, resend_letters
from upcall.kern.layout import Msg
from upcall.parlib import dead, mbox

DEATHS = 4
"""More than a queue redelivers."""


def doomed(w: World, size: int) -> int:
    """An event that so many vcores have died with waits in the queue; its number."""
    number = w.setup(size)
    where = list(w.walk(w.event.queue_mbox(w.at, w.queue_number)))[-1]
    at = w.ucq.slot_at(w.at, where)
    w.set(at, w.get(at) | DEATHS << 4)
    return number


def letter(w: World, size: int) -> int:
    """A dead letter; the event's number."""
    number, box = doomed(w, size), w.event.queue_mbox(w.at, w.queue_number)
    cur = mbox.Cursor(box)
    at = mbox.take(w.sup, cur)
    assert dead.post_letter(w.sup, box, at, Msg()) == 0
    dead.settle_message(w.sup, box, cur.taken)
    return number


class LetterScene(Scene):
    """Each event ends as a letter, is re-sent, and handled."""

    size = 16
    may_repeat = True  # counted here, since each repeat is an event of its own

    def check_letters(self, w: World, number: int, *, least: int, most: int) -> None:
        """So many whole letters of this event."""
        found = [one for one in read_letters(w.handle) if one.arg1 == number]
        assert least <= len(found) <= most, f"{len(found)} letters of event {number}, not {least} to {most}{w.where()}"
        for one in found:
            assert (one.type, one.queue, one.size) == ("event", "queue", self.size)
            assert one.payload == content(number, self.size), "a letter is torn"

    def send_all(self, w: World) -> None:
        """Somebody else sends what letters there are."""
        resend_letters(w.handle, None)
        for v in range(self.vcores):
            if v not in w.hosts:
                w.host(v)
        w.settle()

    def check_repeats(self, w: World, number: int, fate: Fate) -> None:
        handled = w.ledger.handled(number)
        assert 1 <= handled <= 1 + fate.killed, f"event {number} was handled {handled} times"


class AsideScene(LetterScene):
    """A vcore that makes a dead letter of an event: its page may be used up, its mailbox new."""

    turn = False

    def play(self, w: World, strike: Strike) -> Fate:
        w.asleep(1)
        if self.turn:
            for _ in range(w.at.page_slots):
                letter(w, 16)
            discard_letters(w.handle, None)
            w.ledger.clear()
        number = doomed(w, self.size)
        fate = strike()
        if fate.stopped:
            w.settle()
            fate.go_on()
        w.bury(0, fate.pid)
        w.settle()
        self.check_letters(w, number, least=1, most=1 + fate.killed)
        self.send_all(w)
        w.check_handled()
        self.check_repeats(w, number, fate)
        w.check_end(deaths=0)
        return fate


class ResendScene(LetterScene):
    """Somebody re-sends or discards a dead letter."""

    keeps = True

    def play(self, w: World, strike: Strike) -> Fate:
        for v in range(self.vcores):
            w.asleep(v)
        number = letter(w, self.size)
        fate = strike()
        w.settle()
        w.another()
        w.settle()
        w.check_handled(but=(number,))
        if fate.stopped:
            self.send_all(w)  # of what is not in its hands
            fate.go_on()
            w.settle()
        self.send_all(w)
        if self.keeps:
            w.check_handled()
            self.check_repeats(w, number, fate)
        elif not w.ledger.handled(number):
            w.ledger.take_back(number)
        w.check_end(deaths=0)
        return fate


class BatchScene(Scene):
    """A vcore with a batch of payloads in blocks, which its handler does not look at; others use the blocks again as soon
    as they are free."""

    batch_max = 8

    def register(self, host: Host, number: int) -> None:
        super().register(host, number)
        if host.victim:
            host.vcore.handle(None, number, lambda batch: host.ledger.pass_over(SETUP, len(batch)), self.batch_max)

    def play(self, w: World, strike: Strike) -> Fate:
        for _ in range(3):
            w.setup(SMALL)
        fate = strike()
        if fate.stopped:
            fate.go_on()
        for _ in range(3):
            w.setup(SMALL)
        w.bury(0, fate.pid)
        w.check_end(deaths=1)
        return fate


def work(v: Victim) -> None:
    host = v.host()
    host.enter()
    v.arm()
    host.work()


def settled_by(action: Callable[..., int]) -> Callable[[Victim], None]:
    def act(v: Victim) -> None:
        v.handle.thread()
        v.arm()
        action(v.handle, None)

    return act


SIZES = {"inline": 16, "small": SMALL, "large": LARGE}
SCENES: list[Scene] = [
    *(AsideScene(f"letter/aside/{name}", work, size=size) for name, size in SIZES.items()),
    AsideScene("letter/aside/page-turn", work, turn=True),
    BatchScene("batch/blocks", work),
    *(ResendScene(f"letter/resend/{name}", settled_by(resend_letters), size=size) for name, size in SIZES.items()),
    *(
        ResendScene(f"letter/discard/{name}", settled_by(discard_letters), size=size, keeps=False)
        for name, size in SIZES.items()
    ),
]
