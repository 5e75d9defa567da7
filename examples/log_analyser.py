"""Counts the answers of a web server by their status, while its log grows.

    tail -n +1 -F access.log | python examples/log_analyser.py

A report each second in which something came, one more for each SIGUSR1, and the last one at the end of the input. Vcore 0
reads and adds up; all three share the parsing.
"""

import json
import os
import re
import signal
from collections import Counter
from types import SimpleNamespace

import upcall

LINE = re.compile(rb'[^"]*"[^"]*" (?P<status>\d{3}) ')

proc = upcall.Proc("log-analyser", vcores=3)
lines = proc.queue("lines")
desk = proc.queue("desk", flags=upcall.EventFlag.VCORE_PRIVATE | upcall.EventFlag.IPI, vcore=0)

proc.tap(0, queue=desk, type="input")
proc.alarm(every=1, queue=desk)
proc.signals(signal.SIGUSR1, queue=desk)

# What vcore 0 knows: the sums, and how far it has read.
sums = SimpleNamespace(totals=Counter(), rest=b"", read=0, reported=0, ended=False)


@proc.on_tap("input")
def readable(tap: upcall.Tap) -> None:
    data = os.read(tap.fileno(), 1 << 16)
    *whole, sums.rest = (sums.rest + data).split(b"\n")
    sums.read += lines.send_many("line", whole)
    if not data:
        sums.ended = True
        tap.close()
        finish()


@proc.on_batch("line")
def parse(batch: upcall.EventBatch) -> None:
    found: Counter[str] = Counter()
    for ev in batch:
        match = LINE.match(bytes(ev.payload))
        found[match["status"].decode() if match else "no such line"] += 1
    desk.send("counts", json.dumps(found).encode())


@proc.on("counts")
def add(ev: upcall.Event) -> None:
    sums.totals.update(json.loads(bytes(ev.payload)))
    finish()


@proc.on(upcall.EventType.ALARM)
@proc.on(upcall.EventType.POSIX_SIGNAL)
def report(ev: upcall.Event) -> None:
    if ev.type == "POSIX_SIGNAL" or sums.totals.total() > sums.reported:
        show()


def show() -> None:
    sums.reported = sums.totals.total()
    counts = ", ".join(f"{status} x{count}" for status, count in sorted(sums.totals.items()))
    print(f"{sums.reported} lines: {counts}", flush=True)


def finish() -> None:
    """At the end of the input, when everything is counted: stops the process."""
    if sums.ended and sums.totals.total() >= sums.read:
        show()
        os.kill(os.getppid(), signal.SIGTERM)


if __name__ == "__main__":
    proc.run()
