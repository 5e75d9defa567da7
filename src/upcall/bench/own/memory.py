"""Prints what a bare forked Python and a worker keep for themselves, in bytes, as JSON. A script: `memory.py NAME`.

Run by its path, in a fresh interpreter, so that the bare child's parent has imported nothing.
"""

import os
import sys


def private(pid: int) -> int:
    """The bytes that no other process maps: what would be free if this one were gone."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        kib = [int(line.split()[1]) for line in file if line.startswith(("Private_Clean:", "Private_Dirty:"))]
    return 1024 * sum(kib)


def bare() -> int:
    """Of a forked child that does nothing."""
    ready, say = os.pipe()
    wait, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(end)
            os.write(say, b"x")
            os.read(wait, 1)
        finally:
            os._exit(0)
    os.read(ready, 1)
    found = private(pid)
    os.close(end)
    os.waitpid(pid, 0)
    return found


def worker(name: str) -> int:
    """Of the only worker of a process, when it has handled 1,000 events."""
    import upcall

    proc = upcall.Proc(name, vcores=1)
    queue = proc.queue("work")
    proc.on("small")(lambda event: None)
    with proc:
        for _ in range(1000):
            queue.send("small", b"0123456789abcdef")
        proc.drain(10)
        return private(proc.stats()["vcores"][0]["pid"])


if __name__ == "__main__":
    found = {"bare": bare(), "worker": worker(sys.argv[1])}
    import json

    print(json.dumps(found))
