"""The storm for other systems: many tries, in each of which one participant is killed once.

A try: two senders and some receivers run; one of them all is killed at a random moment and replaced; all go on for a while;
the senders are told to end; then a fresh sender sends some more. It *hung* if a sender does not end, or if the fresh one's
messages do not arrive: whoever lives cannot go on. If it did not hang, messages whose `send` had returned and that no
receiver has handled are *lost*; they are counted once nothing has arrived for a while.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from . import ledger as books
from . import show
from .check import check_counts
from .killer import hold
from .ledger import Ledger
from .participants import fork, log_problems, logged
from .peers import Channel, Peer, peers
from .sender import BURST_MAX, PAUSE_MAX_S
from .target import ID, known_bytes

SENDERS = 2
EVENTS_MAX = 1 << 20
WARM_S = 10.0
PATIENCE_S = 3.0
"""Nothing arrives for so long: it hangs. Everything that does not hang takes milliseconds."""

QUIET_S = 0.5
"""Nothing arrives for so long, and the fresh sender's messages have: the rest is lost."""

LOOK_S = 0.01
FRESH = 100


@dataclass(frozen=True)
class Outcome:
    """One try: who was killed, what hung (None: nothing), and how many messages were lost or handled more than once."""

    victim: str
    hung: str | None
    sent: int
    lost: int | None
    twice: int


class Try:
    """One try with one system."""

    def __init__(self, peer: Peer, rng: random.Random, log: Path) -> None:
        self.rng, self.log, self.lossy = rng, log, peer.lossy
        self.ledger = Ledger(SENDERS + 1, peer.receivers, EVENTS_MAX, 1)
        self.channel: Channel = peer.make(self.note)
        self.senders = dict.fromkeys(range(SENDERS), 0)
        self.receivers = dict.fromkeys(range(peer.receivers if self.channel.workers() is None else 0), 0)

    # In senders and receivers

    def note(self, receiver: int, message: bytes) -> None:
        """A message, handled."""
        number, _, _, seat, _ = ID.unpack_from(message)
        at = self.ledger.handlings(seat) + number
        self.ledger.bytes[at] = min(255, self.ledger.bytes[at] + 1)
        self.ledger.words[self.ledger.vcore(receiver) + books.HANDLED] += 1

    def send(self, seat: int, most: int) -> None:
        """A sender's life: until it is told to end, or `most` messages."""
        send, close = self.channel.sender()
        words, at, sends = self.ledger.words, self.ledger.seat(seat), self.ledger.sends(seat)
        rng = random.Random(os.getpid())
        end = min(words[at + books.NUMBER] + most, EVENTS_MAX - 1)
        while words[at + books.NUMBER] < end and (most == FRESH or not words[books.STOP]):
            for _ in range(min(rng.randint(1, BURST_MAX), end - words[at + books.NUMBER])):
                number = words[at + books.NUMBER] + 1
                length = number % 61
                words[at + books.NUMBER] = number
                self.ledger.bytes[sends + number] = books.BEGUN
                send(ID.pack(number, 0, length, seat, 0) + known_bytes(number, length))
                self.ledger.bytes[sends + number] = books.RETURNED
            if rng.random() < 0.5:
                time.sleep(rng.random() * PAUSE_MAX_S)
        close()

    # Outside

    def run(self) -> Outcome:
        """The whole try; whatever happens, its processes are gone afterwards."""
        for receiver in self.receivers:
            self.start_receiver(receiver)
        for sender in self.senders:
            self.start_sender(sender)
        everybody = range(self.ledger.vcores)
        self.until(lambda: all(self.handled(r) for r in everybody), WARM_S, "nothing arrives at the start")
        time.sleep(self.rng.uniform(0.05, 0.3))
        victim = self.kill_one()
        time.sleep(self.rng.uniform(0.1, 0.3))
        self.ledger.words[books.STOP] = 1
        hung = None
        try:
            self.join("a sender does not end")
            self.senders = {SENDERS: 0}
            self.start_sender(SENDERS, FRESH)
            self.join("a fresh sender does not end")
            self.until(self.fresh_arrived, PATIENCE_S, "a fresh sender's messages do not arrive")
            with suppress(TimeoutError):
                self.until(lambda: False, QUIET_S, "")
        except TimeoutError as error:
            hung = "; ".join([str(error), *self.failed_receivers()])
        sent, lost, twice = check_counts(self.ledger)
        return Outcome(victim, hung, sent, None if hung else lost, twice)

    def start_sender(self, seat: int, most: int = EVENTS_MAX) -> None:
        """Forks a sender for a seat."""
        self.senders[seat] = fork(lambda: self.send(seat, most))

    def start_receiver(self, receiver: int) -> None:
        """Forks a receiver."""
        self.receivers[receiver] = fork(lambda: self.channel.receive(receiver, self.note))

    def handled(self, receiver: int) -> int:
        """How many messages a receiver has handled."""
        return self.ledger.words[self.ledger.vcore(receiver) + books.HANDLED]

    def kill_one(self) -> str:
        """Kills somebody, and starts another in his place. His role."""
        while True:
            mine = os.getpid()
            found = [("sender", seat, pid, mine) for seat, pid in self.senders.items()]
            found += [("receiver", receiver, pid, mine) for receiver, pid in self.receivers.items()]
            found += [("receiver", -1, pid, parent) for pid, parent in self.channel.workers() or ()]
            role, place, pid, parent = self.rng.choice(found)
            held = hold(pid, parent)
            if held is not None:
                break
        signal.pidfd_send_signal(held, signal.SIGKILL)
        select.select([held], [], [])
        os.close(held)
        if parent == mine:
            os.waitpid(pid, 0)
        if role == "sender":
            self.start_sender(place)
        elif place >= 0:
            self.start_receiver(place)
        return str(role)

    def join(self, what: str) -> None:
        """The senders end. TimeoutError if one does not while nothing arrives."""
        for seat, pid in self.senders.items():
            self.until(partial(self.ended, seat, pid), PATIENCE_S, what)

    def ended(self, seat: int, pid: int) -> bool:
        """Whether a sender has ended; it is reaped then. TimeoutError if it could not go on, and said so."""
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            self.senders[seat] = 0
            if code := os.waitstatus_to_exitcode(status):
                raise TimeoutError(f"a sender ended with {code}: {self.last_words()}")
        return bool(found)

    def failed_receivers(self) -> Iterator[str]:
        """Receivers that could not go on, and said so."""
        for receiver, pid in self.receivers.items():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self.receivers[receiver] = 0
                yield f"a receiver ended with {os.waitstatus_to_exitcode(status)}: {self.last_words()}"

    def last_words(self) -> str:
        """The end of the log."""
        return " ".join(self.log.read_text(errors="replace").splitlines()[-1:])

    def until(self, true: Callable[[], Any], patience_s: float, what: str) -> None:
        """Waits for something. TimeoutError once nothing has arrived for so long."""
        seen, since = -1, 0.0
        while not true():
            arrived, now = self.ledger.total(books.HANDLED), time.monotonic()
            if arrived != seen:
                seen, since = arrived, now
            elif now - since > patience_s:
                raise TimeoutError(what)
            time.sleep(LOOK_S)

    def fresh_arrived(self) -> bool:
        """Whether all of the fresh sender's messages have been handled; of a lossy system's, any."""
        at = self.ledger.handlings(SENDERS)
        arrived = self.ledger.bytes[at + 1 : at + 1 + FRESH].tolist()
        return any(arrived) if self.lossy else all(arrived)

    def close(self) -> None:
        """Ends whoever is left."""
        for pid in (*self.senders.values(), *self.receivers.values()):
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self.channel.close()
        self.ledger.close()


def run_peers(names: list[str], tries: int, seed: int, *, as_json: bool = False) -> int:
    """So many tries with each system, and a table. ValueError for a name that is none of ours. The exit code: 0 unless
    upcall itself lost something or hung."""
    known = peers()
    chosen = list(known) if "all" in names else list(dict.fromkeys(names))
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"no peer {unknown[0]!r}: choose from {', '.join(known)}, all")
    screen = show.Screen(quiet=as_json)
    rows = []
    problems: list[str] = []
    try:
        for name in chosen:
            why = known[name].missing()
            with tempfile.TemporaryDirectory(prefix="upcall-storm-") as folder, logged(log := Path(folder) / "log"):
                rows.append(summary(known[name], [] if why else tried(known[name], tries, seed, screen, log), why))
                if name == "upcall":
                    problems = log_problems(log)
    except KeyboardInterrupt:
        screen.say("stopped")
        return 130
    if as_json:
        result = {"seed": seed, "tries": tries, "senders": SENDERS, "peers": rows, "problems": problems}
        print(json.dumps(result, indent=2))
    else:
        screen.peers(rows, problems)
    wrong = any(row["name"] == "upcall" and (row["hung"] or row["lost"]) for row in rows)
    return 1 if wrong or problems else 0


def tried(peer: Peer, tries: int, seed: int, screen: show.Screen, log: Path) -> list[Outcome]:
    """What came of so many tries."""
    outcomes: list[Outcome] = []
    with screen.bar(peer.name, tries) as step:
        for number in range(tries):
            one = Try(peer, random.Random(f"{seed}/{number}"), log)
            try:
                outcomes.append(one.run())
            finally:
                one.close()
            step()
    return outcomes


def summary(peer: Peer, outcomes: list[Outcome], missing: str | None) -> dict[str, Any]:
    """A system's row."""
    lost = [one.lost for one in outcomes if one.lost is not None]
    return {
        "name": peer.name,
        "how": peer.how,
        "missing": missing,
        "tries": len(outcomes),
        "hung": sum(one.hung is not None for one in outcomes),
        "lost": sum(lost),
        "lost_per_kill": {"mean": mean(lost), "most": max(lost)} if lost else None,
        "twice": sum(one.twice for one in outcomes),
        "outcomes": [asdict(one) for one in outcomes],
    }
