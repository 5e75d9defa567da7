"""What a process costs that has nothing to do: `idle-cpu`, `worker-memory`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import upcall

from ..measure import Placing, runs_for
from ..peers.job import sampled
from ..sample import ROWS, Measurement, Sample
from .running import NAME, new_proc, started

IDLE_S: Final = 10.0
_SETTLE_S: Final = 0.2
_VCORES: Final = 2


def rows() -> Mapping[str, Measurement]:
    """The rows of this file."""
    return {"idle-cpu": idle_cpu, "worker-memory": worker_memory}


def idle_cpu(scale: float) -> Sample:
    """Ticks of CPU time, user and system, of all processes of a waiting process, over 10 s (less at a smaller scale)."""
    placing = Placing.of()
    seconds = max(0.2, IDLE_S * min(1.0, scale))
    proc = new_proc(vcores=_VCORES)
    proc.queue("work")
    proc.on("small")(lambda event: None)
    ticks: list[int] = []

    def run() -> list[float]:
        if ticks:  # once is enough: a process that sleeps sleeps
            return []
        with started(proc, placing.receiver):
            # Woken once, so that what is measured is a vcore that has gone back to sleep.
            with upcall.connect(proc.name) as remote:
                remote.queue("work").send("small")
                time.sleep(_SETTLE_S)
                pids = [remote.stats()["pid"], *(vcore["pid"] for vcore in remote.stats()["vcores"])]
            before = sum(map(cpu_ticks, pids))
            time.sleep(seconds)
            ticks.append(sum(map(cpu_ticks, pids)) - before)
        return [float(ticks[0])]

    note = f"over {seconds:g} s; {_VCORES} workers and their supervisor; user + system of /proc/PID/stat"
    return sampled("idle-cpu", NAME, placing, scale, run, note, with_p99=False)


def cpu_ticks(pid: int) -> int:
    """User and system time of a process, in clock ticks."""
    # The command's name, in parentheses, may hold anything: the fields are counted behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def worker_memory(scale: float) -> Sample:
    """MB that belong to a worker alone, beyond those of a forked Python that has imported nothing."""
    placing = Placing.of()
    answers: list[dict[str, Any]] = []

    def run() -> list[float]:
        answers.append(_memory(placing.receiver))
        return [(answers[-1]["worker"] - answers[-1]["bare"]) / 1e6]

    sample = sampled("worker-memory", NAME, placing, scale, run, "", with_p99=False)
    if not sample.measured:
        return sample
    bare = sum(answer["bare"] for answer in answers) / len(answers) / 1e6
    note = (
        "Private_Clean + Private_Dirty of /proc/PID/smaps_rollup, after 1,000 events; "
        f"less the same of a bare forked Python ({bare:.2f} MB)"
    )
    return Sample("worker-memory", NAME, ROWS["worker-memory"].unit, sample.median, None, runs_for(scale),
                  str(placing), note)  # fmt: skip


def _memory(cpu: int) -> dict[str, Any]:
    """In an interpreter of its own: this one has imported too much to be a bare Python's parent."""
    script = Path(__file__).with_name("memory.py")
    root = str(Path(upcall.__file__).parents[1])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    done = subprocess.run(
        [sys.executable, "-P", str(script), new_proc().name],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
        preexec_fn=partial(os.sched_setaffinity, 0, {cpu}),
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
