"""`upcall clean` against owners that start and stop at the same moment: nobody is told that a name is taken which is not,
and nothing that was sent goes with a file that no name leads to."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import upcall
from procs import LONG_S, Words, ended, forked, until
from upcall import Proc, inspect
from upcall.errors import MailboxBusy, NameInUse, NoSuchProcess, NoSuchQueue, NoSuchType, ProcessGone
from upcall.host.segment import folder

SECONDS = 3.0
MOST = 200_000
"""Flags of what was handled; counters follow."""


class Count:
    """A counter with one writer in shared bytes."""

    def __init__(self, words: Words, at: int) -> None:
        self.words = words
        self.at = MOST + 8 * at

    def __iadd__(self, by: int) -> Count:
        self.words.memory[self.at : self.at + 8] = (int(self) + by).to_bytes(8, "little")
        return self

    def __int__(self) -> int:
        return int.from_bytes(self.words.memory[self.at : self.at + 8], "little")


def define(handled: Words) -> Proc:
    proc = Proc("box", vcores=1, host="thread", memory="4 MiB")
    proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        handled[ev.arg2] = 1

    return proc


def for_a_while(step: Callable[[], object], enough: Callable[[], bool] = lambda: True) -> Callable[[], None]:
    """`step` again and again; on a machine that is loaded until it is `enough`, but no longer than four times as long."""

    def run() -> None:
        begin = time.monotonic()
        while (spent := time.monotonic() - begin) < SECONDS or (spent < 4 * SECONDS and not enough()):
            step()

    return run


def test_clean_takes_no_name_and_no_event_from_a_starting_owner() -> None:
    """One owner at a time starts and stops or dies, so a name in use is always a false one; two clean-ups and a sender
    run beside it."""
    words = Words(MOST + 64)
    started, sent, cleaned = Count(words, 0), Count(words, 1), [Count(words, 2), Count(words, 3)]

    def life() -> None:
        proc = define(words)
        proc.start()
        if int(started) % 3:
            proc.stop("now" if int(started) % 3 == 1 else "drain")

    def own() -> None:
        nonlocal started
        assert ended(forked(life)) == 0
        started += 1

    def cleaner(i: int) -> Callable[[], None]:
        def clean() -> None:
            time.sleep(0.001)
            cleaned[i] += sum(one.removed for one in inspect.clean())

        return clean

    def send() -> None:
        nonlocal sent
        try:
            with upcall.connect("box") as remote:
                for _ in range(20):
                    words[int(sent)] = 2
                    remote.queue("orders").send("order", arg2=int(sent))
                    sent += 1
        except (NoSuchProcess, NoSuchQueue, NoSuchType, ProcessGone, MailboxBusy):
            words[int(sent)] = 0
        time.sleep(0.05)  # while a sender is attached, nothing is cleaned up

    def enough() -> bool:
        return int(started) > 10 and any(map(int, cleaned))

    children = [forked(for_a_while(step, enough)) for step in (own, cleaner(0), cleaner(1), send)]
    assert [ended(child) for child in children] == [0, 0, 0, 0]
    last = define(words)
    last.start()
    assert last.drain(LONG_S) == []
    last.stop()
    assert [i for i in range(int(sent)) if words[i] != 1] == []
    words.close()


def test_of_owners_and_clean_ups_at_once_each_is_told_the_truth() -> None:
    """NameInUse only if another owner held the name between the start and the answer."""
    words = Words(MOST + 64)
    started = [Count(words, 0), Count(words, 1), Count(words, 2)]
    stopped = [Count(words, 3), Count(words, 4), Count(words, 5)]

    def owner(i: int) -> Callable[[], None]:
        others = [j for j in range(3) if j != i]

        def own() -> None:
            # Counted before the name is taken, and after it is given back: wider than the truth, never narrower.
            before = [int(stopped[j]) for j in others]
            proc = define(words)
            started[i] += 1
            try:
                proc.start()
            except NameInUse:
                assert any(int(started[j]) > b for j, b in zip(others, before, strict=True)), "nobody had it"
            else:
                proc.stop()
            stopped[i] += 1

        return own

    def clean() -> None:
        time.sleep(0.001)
        inspect.clean()

    children = [forked(for_a_while(step)) for step in (owner(0), owner(1), owner(2), clean, clean)]
    assert [ended(child) for child in children] == [0] * 5
    assert not (folder() / "box").exists()
    words.close()


def test_what_a_killed_clean_up_had_declared_dying_takes_events_again_after_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = Words(MOST)
    assert ended(forked(lambda: define(words).start())) == 0
    with upcall.connect("box") as remote:
        remote.queue("orders").send("order", arg2=1)
    module = sys.modules[inspect.clean.__module__]
    real = module._put_state  # type: ignore[attr-defined]

    def killed(*arguments: Any) -> None:
        real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_put_state", killed)
        assert ended(forked(inspect.clean)) == -signal.SIGKILL
    assert inspect.snapshot("box").state == "DYING"
    assert [one.removed for one in inspect.clean()] == [False]
    with upcall.connect("box") as remote:
        remote.queue("orders").send("order", arg2=2)
    last = define(words).start()
    assert last.drain(LONG_S) == []
    last.stop()
    assert (words[1], words[2]) == (1, 1)
    words.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_clean_removes_what_a_killed_start_had_made_and_not_what_one_makes_that_lives(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = Words(MOST)
    real = os.link

    def link(*arguments: Any) -> None:
        os.kill(os.getpid(), number)
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("os.link", link)
        starter = forked(lambda: define(words).start().stop())
    if number == signal.SIGKILL:
        assert ended(starter) == -signal.SIGKILL
        assert len(list((folder() / "box").iterdir())) == 1
        (gone,) = inspect.clean()
        assert (gone.name, gone.removed, gone.lost, gone.why) == ("box", True, 0, "its start was killed")
    else:
        until(lambda: Path(f"/proc/{starter}/stat").read_text().rpartition(")")[2].split()[0] == "T", "its stop")
        assert inspect.clean() == []
        os.kill(starter, signal.SIGCONT)
        assert ended(starter) == 0
    assert not (folder() / "box").exists()
    assert inspect.clean() == []
    words.close()
