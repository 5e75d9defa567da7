"""What the pages say: their blocks of programs and of commands, and how true output compares with what stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from procs import LONG_S

ROOT = Path(__file__).resolve().parents[1]


def blocks(page: str, kind: str = "python") -> list[str]:
    """A page's blocks of a kind, one by one: "python", "console", or "" for what a program says."""
    found: list[str] = []
    text = (ROOT / page).read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        if language == kind:
            found.append(block)
    return found


def block(page: str, kind: str, part: str) -> str:
    """The one block of that kind in which this stands."""
    (found,) = [block for block in blocks(page, kind) if part in block]
    return found


def session(page: str, part: str) -> list[tuple[str, str]]:
    """The commands of a console block, without comments, each with what it says."""
    typed = re.split(r"^\$ ", block(page, "console", part), flags=re.M)
    assert not typed[0]
    return [(re.split(r"\s+# ", line)[0], said) for line, _, said in (each.partition("\n") for each in typed[1:])]


def shape(text: str, digits: int = 3) -> list[str]:
    """Lines as they compare: pids, times, amounts (numbers of so many digits) are #, and columns are as wide as they are."""
    text = re.sub(rf"(?<=-)[0-9a-f]{{6}}\b|\d[\d,]*\.\d+|\d[\d,]{{{digits - 1},}}", "#", text)
    return [" ".join(line.split()) for line in re.sub("─+", "─", text).splitlines() if line.strip()]


def shell(command: str, folder: Path) -> str:
    """What a command says on its standard output; `upcall` and `python` are those of the tests."""
    ours = f'upcall() {{ "{sys.executable}" -m upcall.cli "$@"; }}; python() {{ "{sys.executable}" "$@"; }}\n'
    done = subprocess.run(["sh", "-c", ours + command], cwd=folder, capture_output=True, text=True, timeout=3 * LONG_S)
    assert done.returncode == 0, done.stderr
    return done.stdout
