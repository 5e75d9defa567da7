"""The program that sweeps: `python -m sweep.server PAGE`, on the package that dies. It reads scenes to play from its
standard input, one JSON object a line, and answers each with one."""

from __future__ import annotations

import faulthandler
import gc
import json
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from sweep.ledger import Ledger
from sweep.page import Page
from sweep.parent import end_with_parent
from sweep.scenes import SCENES
from sweep.victim import Fate, strike
from sweep.world import NAME, World

ROUND_S = 40
"""How long one round may take, before the server dies and says where it was."""
FAILURES_MAX = 3
STEPS_MAX = 5000


def sweep(scene: Any, page: Page, ledger: Ledger, how: int, every: int, first: int = 1) -> dict[str, Any]:
    """Plays a scene with a victim that dies or stops at its first, second ... access, until it comes to its end."""
    failures: list[str] = []
    start, used = time.perf_counter(), cpu_s()
    n = first
    w = World(scene, ledger)
    try:
        while n < STEPS_MAX and len(failures) < FAILURES_MAX:
            page.say(f"{scene.name} n={n}")
            signal.alarm(ROUND_S)
            try:
                fate = play(scene, w, page, n, how)
            except Exception:
                failures.append(f"n={n}, before {page.step_name}:\n{traceback.format_exc()}")
                w.close()
                w = World(scene, ledger)
            else:
                if w.spoiled:
                    w.close()
                    w = World(scene, ledger)
                if fate.ended and page.seen < n:
                    break
            n += every
    finally:
        signal.alarm(0)
        w.close()
    seconds = time.perf_counter() - start
    return {
        "scene": scene.name, "accesses": page.seen, "played": n, "seconds": seconds, "cpu": cpu_s() - used,
        "failures": failures,
    }  # fmt: skip


def cpu_s() -> float:
    """Seconds of CPU that this server and its victims have used."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def play(scene: Any, w: World, page: Page, n: int, how: int) -> Fate:
    """One round."""
    w.reset()
    page.prepare(n, how)
    return scene.play(w, lambda: strike(scene, page, w.ledger, NAME, lambda pid: scene.meanwhile(w, pid)))


def main() -> None:
    end_with_parent(signal.SIGKILL)
    faulthandler.register(signal.SIGALRM, chain=True)
    page, ledger = Page(Path(sys.argv[1])), Ledger()
    gc.collect()
    gc.freeze()  # a victim that collects would touch, and so copy, every object of the server
    for line in sys.stdin:
        order = json.loads(line)
        scene = next(scene for scene in SCENES if scene.name == order["scene"])
        print(
            json.dumps(sweep(scene, page, ledger, order["signal"], order["every"], order.get("first", 1))), flush=True
        )


if __name__ == "__main__":
    main()
