"""The input, the source files of the Python standard library on this machine, and the work, the words of a line."""

from __future__ import annotations

import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

NOT_OURS = {"site-packages", "dist-packages", "__pycache__"}


def source_files(most: int | None = None) -> list[Path]:
    """The files in the order of their names, at most `most` of them. ValueError if there are none."""
    root = Path(sysconfig.get_path("stdlib"))
    found = sorted(path for path in root.rglob("*.py") if not NOT_OURS.intersection(path.relative_to(root).parts))
    if not found:
        raise ValueError(f"no source files of the standard library in {root}: install them, or use another Python")
    return found[:most]


def lines(paths: Iterable[Path]) -> Iterator[list[bytes]]:
    """Each file's lines."""
    for path in paths:
        yield path.read_bytes().splitlines()


def count(counts: Counter[bytes], line: bytes) -> None:
    """The work that one line is: its words, counted. The same for everyone who is measured."""
    for word in line.split():
        counts[word] += 1
