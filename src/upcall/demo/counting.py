"""The process `demo`: every vcore counts the words of the lines it takes, and reports when it is asked."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from ..front.event import Event
from ..proc import Proc
from .text import count

QUEUE, LINE, REPORT = "lines", "line", "report"


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
