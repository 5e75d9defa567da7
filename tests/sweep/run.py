"""The program that has the scenes of a test run played: `python -m sweep.run`. It reads them from its standard input, one
JSON list, and writes a JSON object a line: where the package that dies is, then an answer for each scene, as they come."""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import as_completed
from typing import Any

from sweep import build
from sweep.client import Servers
from sweep.parent import end_with_parent

NICE = 10
"""Processors that wait are enough for it: what is tested meanwhile goes first."""


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    end_with_parent(signal.SIGTERM)
    os.nice(NICE)
    orders = json.load(sys.stdin)
    library = build.build()
    say({"library": str(library)})
    servers = Servers(library)
    try:
        asked = {servers.submit(scene, sig, every): (scene, how) for scene, how, sig, every in orders}
        for done in as_completed(asked):
            scene, how = asked[done]
            error = done.exception()
            say({"scene": scene, "how": how, **({"failures": [str(error)]} if error else done.result())})
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is told to end as soon as it has said all
        servers.close()


if __name__ == "__main__":
    main()
