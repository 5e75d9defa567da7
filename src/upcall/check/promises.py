"""The contract's promises by number, as far as a story names them. docs/contract.md says what each means."""

from __future__ import annotations

import re

PROMISES = {
    "G1": "No loss",
    "G2": "No sleep on work",
    "G3": "Whole or nothing",
    "G4": "One death, one damage",
    "G5": "Exactly once otherwise",
    "G6": "Order",
    "G7": "Private",
    "G8": "Must run",
    "G9": "Quiet",
    "G10": "Safe",
    "G11": "Bounded",
    "G12": "Awake within",
}


def promise_of(broken: str) -> str:
    """The number that a broken promise begins with, "" if it has none."""
    found = re.match(r"(G\d+)\b", broken)
    return found[1] if found and found[1] in PROMISES else ""
