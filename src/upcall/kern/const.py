"""The numbers of `const.pxd`, for everyone who is not compiled: the interpreted life, the host layer, the commands."""

from __future__ import annotations

import re
from pathlib import Path

_LINE = re.compile(r"^    ([A-Z][A-Z0-9_]*) = (0x[0-9A-Fa-f]+|\d+)\b")


def _read() -> dict[str, int]:
    lines = Path(__file__).with_suffix(".pxd").read_text(encoding="utf-8").splitlines()
    return {found[1]: int(found[2], 0) for line in lines if (found := _LINE.match(line))}


NUMBERS: dict[str, int] = _read()
"""Every number by its name, in the order of the file."""

globals().update(NUMBERS)


def __getattr__(name: str) -> int:
    raise AttributeError(f"const.pxd defines no number {name!r}")
