"""The process `demo`: every vcore counts the words of the lines it takes, and reports when it is asked.

If vcores are killed meanwhile, what they have counted in their memory dies with them, and a line may be handled twice.
Then (`define_journal`) the effect of a handler is made repeatable: each line has a number, and its words are written into
a file under that number; a line that was written twice counts once.
"""

from __future__ import annotations

import os
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..front.event import Event
from ..proc import Proc
from .text import count

QUEUE, LINE, REPORT = "lines", "line", "report"
NUMBER = struct.Struct("<Q")
"""In front of a line that has a number."""


def define(name: str, vcores: int, folder: Path) -> Proc:
    """The definition. A "report" in a vcore's private mailbox has it write its counts to a file in `folder`."""
    proc = Proc(name, vcores=vcores)
    proc.queue(QUEUE)
    counts: Counter[bytes] = Counter()  # one for each vcore: workers are forked

    @proc.on(LINE)
    def line(ev: Event) -> None:
        count(counts, bytes(ev.payload))

    @proc.on(REPORT)
    def report(ev: Event) -> None:
        draft = folder / f"{ev.vcore}.draft"
        draft.write_bytes(b"".join(b"%d %b\n" % (n, word) for word, n in counts.items()))
        os.replace(draft, folder / str(ev.vcore))

    return proc


def merged(folder: Path, vcores: int) -> Counter[bytes]:
    """The counts of all vcores together. FileNotFoundError if one has not reported."""
    total: Counter[bytes] = Counter()
    for vcore in range(vcores):
        for record in (folder / str(vcore)).read_bytes().splitlines():
            n, _, word = record.partition(b" ")
            total[word] += int(n)
    return total


def numbered(group: list[bytes], first: int) -> list[bytes]:
    """Lines as payloads with a number in front."""
    return [NUMBER.pack(number) + line for number, line in enumerate(group, first)]


def define_journal(name: str, vcores: int, folder: Path) -> Proc:
    """The definition for vcores that may be killed at any instruction. Each worker writes a file of its own, one record
    for each line, with one `write`: killed in it, it leaves a record without its end, which nobody reads."""
    proc = Proc(name, vcores=vcores)
    proc.queue(QUEUE)
    journals: list[int] = []  # this worker's, once it has one

    @proc.on(LINE)
    def line(ev: Event) -> None:
        if not journals:
            path = folder / f"{ev.vcore}-{os.getpid()}-{time.monotonic_ns()}"
            journals.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        payload = bytes(ev.payload)
        (number,) = NUMBER.unpack_from(payload)
        counts: Counter[bytes] = Counter()
        count(counts, payload[NUMBER.size :])
        words = b"".join([b" %d %b" % (n, word) for word, n in counts.items()])
        os.write(journals[0], b"%d %d%b\n" % (number, ev.redeliveries, words))

    return proc


@dataclass
class Journal:
    """What the files of all workers say together: the counts, of how many lines; how many lines were delivered again, and
    how many of them had been written before."""

    counts: Counter[bytes] = field(default_factory=Counter)
    lines: set[int] = field(default_factory=set)
    redelivered: int = 0
    again: int = 0


def journalled(folder: Path) -> Journal:
    """Reads the files of all workers."""
    found = Journal()
    for path in folder.iterdir():
        # What follows the last line end is a record that was not finished.
        for record in path.read_bytes().split(b"\n")[:-1]:
            number, redeliveries, *fields = record.split()
            found.redelivered += redeliveries != b"0"
            if int(number) in found.lines:
                found.again += 1
                continue
            found.lines.add(int(number))
            for n, word in zip(fields[::2], fields[1::2], strict=True):
                found.counts[word] += int(n)
    return found
