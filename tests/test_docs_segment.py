"""docs/segment.md says what kern/const and kern/layout say: every number of the format, none missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from upcall.kern import const, layout, proc

PAGE = Path(__file__).resolve().parents[1] / "docs" / "segment.md"

PRIVATE = {
    "OK", "FULL", "BUSY", "GONE", "BAD_QUEUE", "BAD_VCORE", "BAD_MAILBOX", "BAD_TYPE", "CORRUPT", "ABSENT",
    "NO_VCORE", "WALK_MAX", "LIST_TRIES_MAX", "WATCH_MAX", "LONG_NS", "FAST_STREAK", "FAILING", "NOT_SEEN", "SKIP_ASK",
    "SPANS_TRIED",
}  # fmt: skip
"""Numbers of const.pxd that never lie in a segment: results, and bounds on an actor's own steps."""


def tables() -> list[list[dict[str, str]]]:
    """The page's tables, each a list of rows, each a dict from the column's head to the cell."""
    found = []
    head: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not head:
            head = cells
            found.append([])
        elif not set(line) <= set("|-: "):
            assert len(cells) == len(head), line
            found[-1].append(dict(zip(head, cells, strict=True)))
    return found


def rows(column: str) -> list[dict[str, str]]:
    """All rows of the tables that have this column."""
    picked = [row for table in tables() for row in table if column in row]
    assert picked, f"no table has a column {column!r}"
    return picked


def bare(cell: str) -> str:
    assert re.fullmatch(r"`\w+`", cell), cell
    return cell.strip("`")


def numbers() -> dict[str, int]:
    """Every number that the page states, by its name."""
    stated = [(bare(row["Name"]), row.get("Offset") or row["Value"]) for row in rows("Name")]
    names = [name for name, _ in stated]
    assert len(names) == len(set(names)), f"stated twice: {sorted(n for n in names if names.count(n) > 1)}"
    return {name: int(number, 0) for name, number in stated}


def test_every_number_on_the_page_is_the_sources() -> None:
    wrong = {
        name: (value, const.NUMBERS.get(name)) for name, value in numbers().items() if const.NUMBERS.get(name) != value
    }
    assert not wrong


def test_every_number_of_the_format_is_on_the_page() -> None:
    assert not PRIVATE - set(const.NUMBERS)
    assert set(const.NUMBERS) - PRIVATE == set(numbers())


def test_fields_of_a_record_do_not_overlap() -> None:
    """Each field has its room before the next begins, by the types on the page."""
    for table in tables():
        if not table or "Type" not in table[0]:
            continue
        fields = [(int(row["Offset"]), size(row["Type"]), row["Name"]) for row in table]
        for at, length, name in fields:
            others = [other for start, _, other in fields if at < start < at + length]
            assert not others, f"{name} at {at} has {length} bytes, and {others} begin inside"
            assert at % min(length, 8) == 0, f"{name} at {at} is not aligned"


def size(kind: str) -> int:
    if found := re.fullmatch(r"u(\d+)(?:\[(\d+)\])?", kind):
        return int(found[1]) // 8 * int(found[2] or 1)
    if found := re.fullmatch(r"(\d+) bytes", kind):
        return int(found[1])
    found = re.fullmatch(r"(\d+) records", kind)
    assert found, kind
    return int(found[1]) * const.BLOCK_STRIDE


WORDS = {
    "name_of": (layout.name_of, ("slot", "generation")),
    "word": (layout.word, ("state", "gen", "owner")),
    "place": (layout.place, ("page", "slot", "gen")),
    "vc_word": (proc.vc_word, ("state", "seq", "name")),
    "reference": (None, ("span", "block")),
}
"""The function that makes each word, and its arguments; `reference` is only seen in the interpreted life: tried below."""


@pytest.mark.parametrize("name", WORDS)
def test_words_have_the_fields_of_the_page(name: str) -> None:
    make, fields = WORDS[name]
    stated = {
        row["Field"]: (int(row["First bit"]), int(row["Bits"])) for row in rows("Field") if bare(row["Word"]) == name
    }
    assert tuple(stated) == fields
    if make is None:
        return
    for field, (first, bits) in stated.items():
        full = (1 << bits) - 1
        made = make(*[full if other == field else 0 for other in fields])
        assert made == full << first, field


def test_reference_counts_spans_from_one(lives: Any) -> None:
    reference = lives("interpreted").kern.arena.reference
    assert (reference(0, 0), reference(6, 3), reference(0, const.BLOCK_LARGE)) == (1, 7 | 3 << 32, 1 | 255 << 32)


def test_example_geometry_has_the_offsets_of_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(r"`Proc\(\.\.\., vcores=4, memory=\"256 MiB\"\)`: geometry ([\d, ]+)\.", text)
    assert found
    from upcall.host.segment import Geometry

    geometry = Geometry.for_memory(4, 256 << 20)
    assert [int(number) for number in found[1].split(",")] == list(vars(geometry).values())
    seg = geometry.seg()
    stated = {bare(row["Region"]): int(row["Starts at"]) for row in rows("Region")}
    assert stated == {name: getattr(seg, name) for name in stated}
    assert len(stated) == 13


def test_formulas_of_the_page_give_the_offsets() -> None:
    """The block of formulas is arithmetic that Python understands, once `file size` has a name without a blank."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (block,) = [block for block in blocks if block.startswith("slots")]
    lines = [
        re.split(r" {3,}(?=up\(x|every)", line)[0] for line in block.replace("file size", "size     ").splitlines()
    ]
    for numbers_ in ((16, 64, 256, 256, 255, 4096, 2048), (3, 5, 33, 9, 1, 65, 1)):
        geometry = layout.Seg(*numbers_)
        names = ("max_vcores", "max_queues", "max_types", "max_slots", "page_slots", "nr_pages", "nr_spans")
        space: dict[str, Any] = {**const.NUMBERS, **dict(zip(names, numbers_, strict=True))}
        space["up"] = lambda x, n: -(-int(x) // n) * n
        exec("\n".join(lines), space)
        assert {n: space[n] for n in space if hasattr(geometry, n)} == {
            n: getattr(geometry, n) for n in space if hasattr(geometry, n)
        }
        assert space["size"] == geometry.size
