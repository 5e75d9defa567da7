"""A program that feeds the demo: `python -m upcall.demo.sender`. It reads {"name": ..., "paths": [...], "first": ...} as a
line of JSON, says `ready`, waits for a line, then sends every line of every file, numbered from `first` on unless that is
null, and says how many they were."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..remote import connect
from .counting import LINE, QUEUE, numbered
from .text import lines


def main() -> int:
    """The whole life of the program."""
    task = json.loads(sys.stdin.readline())
    first, sent = task["first"], 0
    with connect(task["name"]) as remote:
        queue = remote.queue(QUEUE)
        print("ready", flush=True)
        if not sys.stdin.readline():
            return 1
        for group in lines(map(Path, task["paths"])):
            sent += queue.send_many(LINE, group if first is None else numbered(group, first + sent))
    print(sent, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
