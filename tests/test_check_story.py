"""Stories: what a row says, in columns, in a narrow terminal, and as a page that needs nothing else."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from upcall.check import runner
from upcall.check.explore import Explorer
from upcall.check.naming import namer
from upcall.check.plan import SCENARIOS, Plan, Scenario
from upcall.check.process import SMALL
from upcall.check.promises import PROMISES
from upcall.check.story import Story, number, tell
from upcall.check.verdict import State
from upcall.kern import const, layout

ROOT = Path(__file__).resolve().parents[1]
VOID = {"meta", "input", "br"}


def story_of(lay_out: Callable[[Scenario], object], model: str = "tso", deaths: int = 0) -> Story:
    plan = Plan(lay_out.__name__, lay_out)
    try:
        explorer = Explorer(plan, model, deaths)
        violation = explorer.run().violation
        assert violation is not None
        return tell(explorer, violation.moves)
    finally:
        plan.close()


def store_buffering(s: Scenario) -> None:
    """Each says that it is there, then looks; `x < y` & "more"."""
    x, y = s.word("x"), s.word("y")

    @s.actor
    def one() -> None:
        x.store(1)
        s.note("one", y.load())

    @s.actor
    def two() -> None:
        y.store(1)
        s.note("two", x.load())

    @s.at_end
    def check(state: State) -> None:
        assert not (state.count("one", 0) and state.count("two", 0)), "G2: neither saw the other"


@pytest.fixture(scope="module")
def told() -> Story:
    return story_of(store_buffering)


def test_what_waits_in_a_buffer_is_said(told: Story) -> None:
    said = [(told.actors[row.actor], row.what) for row in told.rows]
    assert ("one", "x = 1, into its buffer") in said
    assert ("two", "y = 1, into its buffer") in said
    assert ("one", "x = 1 reaches memory") in said
    stored = next(row for row in told.rows if row.what == "x = 1, into its buffer")
    assert (0, ("x = 1",)) in stored.buffers
    assert not told.rows[-1].buffers  # at the end all is in memory


def test_a_read_says_what_it_does_not_see(told: Story) -> None:
    unseen = {row.what: row.unseen for row in told.rows if row.unseen}
    assert unseen in (
        {"x is 0": "one's x = 1 is still in its buffer"},
        {"y is 0": "two's y = 1 is still in its buffer"},
    )


def test_under_ra_a_read_says_which_newer_stores_it_does_not_see() -> None:
    def message(s: Scenario) -> None:
        data, flag = s.word("data"), s.word("flag")

        @s.actor
        def writer() -> None:
            data.store(7)
            flag.store(1)

        @s.actor
        def reader() -> None:
            if flag.load():
                assert data.load() == 7, "the flag without the data"

    told = story_of(message, "ra")
    (old,) = [row for row in told.rows if row.unseen]
    assert (old.what, old.unseen) == ("data is 0", "does not see writer's data = 7")
    assert told.said == "the flag without the data"
    assert "Traceback" in told.broken


def test_changes_say_before_and_after() -> None:
    def changes(s: Scenario) -> None:
        word = s.word("word", 5)

        @s.actor
        def one() -> None:
            word.add(-1)
            word.cas(9, 2)
            word.cas(4, 0x20)
            word.keep_bits(~0x20)
            word.wait(0)

        @s.actor
        def two() -> None:
            word.load()

        @s.at_end
        def never(state: State) -> None:
            raise AssertionError("shown")

    told = story_of(changes, "sc")
    assert [row.what for row in told.rows if row.actor == 0] == [
        "word: 5 -> 4 (fetch-and-add -1)", "word: 9 -> 2 fails, it is 4", "word: 4 -> 0x20",
        "word: 0x20 -> 0 (fetch-and ~0x20)", "sleeps on word",
    ]  # fmt: skip
    assert told.ends == ("sleeps on word", "has ended")


def test_a_death_takes_the_buffer_to_memory_and_ends_the_column() -> None:
    def dies(s: Scenario) -> None:
        word = s.word("word")

        @s.actor
        def one() -> None:
            word.store(1)
            word.load()

        @s.actor(mortal=False)
        def two() -> None:
            s.note("read", word.load())

        @s.at_end
        def check(state: State) -> None:
            assert not (state.dead(0) and state.count("read", 1)), "dead"

    told = story_of(dies, "tso", 1)
    assert "was killed" in told.ends
    death = next(k for k, row in enumerate(told.rows) if row.kind == "dies")
    assert told.rows[death].what == "is killed"
    assert not told.rows[death].buffers


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (9, "9"), (10, "0xa"), ((1 << 64) - 1, "-1"), (~4 & (1 << 64) - 1, "-5")]
)
def test_numbers(value: int, said: str) -> None:
    assert number(value) == said


# ---- the terminal ----------------------------------------------------------------------------------------------------


def test_each_actor_has_a_column(told: Story) -> None:
    lines = told.lines(width=100)
    (heads,) = [line for line in lines if re.fullmatch(r" +one +two", line)]
    at = {"one": heads.index("one"), "two": heads.index("two")}
    for line in lines:
        if "x = 1, into" in line:
            assert line.index("x = 1, into") == at["one"]
        if "y = 1, into" in line:
            assert line.index("y = 1, into") == at["two"]
    assert max(map(len, lines)) <= 100
    assert any("test_check_story.py:" in line and "x.store(1)" in line for line in lines)
    assert "BROKEN: G2: neither saw the other" in lines
    assert "  the promise: G2 No sleep on work" in lines


def test_without_room_for_columns_steps_are_indented(told: Story) -> None:
    lines = told.lines(width=50)
    assert not [line for line in lines if re.fullmatch(r" +one +two", line)]
    assert [line for line in lines if re.match(r" *\d+  one +x = 1, into its buffer", line)]
    assert [line for line in lines if re.match(r" *\d+    two +y = 1, into its buffer", line)]


def test_colours_only_if_asked_for(told: Story) -> None:
    assert "\x1b[" not in "".join(told.lines())
    assert "\x1b[" in "".join(told.lines(color=True))


# ---- the page --------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Checks that tags are closed in order; collects attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.text.setdefault(tag, []).append(data)


@pytest.fixture(scope="module")
def tags(told: Story) -> Tags:
    parsed = Tags()
    parsed.feed(told.page())
    parsed.close()
    return parsed


def test_the_page_is_well_formed(tags: Tags) -> None:
    assert tags.open == []


def test_the_page_has_every_step_and_column(told: Story, tags: Tags) -> None:
    ids = [value for name, value in tags.attributes if name == "id" and value and re.fullmatch(r"s\d+", value)]
    assert ids == [f"s{k}" for k in range(1, len(told.rows) + 1)]
    cells = tags.text["td"]
    for row in told.rows:
        assert row.what in cells
    assert "".join(tags.text["th"]).startswith("onetwo")
    assert "one's x = 1 is still in its buffer" in cells or "two's y = 1 is still in its buffer" in cells
    assert "Broken: G2: neither saw the other" in tags.text["strong"]
    assert "The promise: G2 No sleep on work" in tags.text["p"]
    assert 'Each says that it is there, then looks; x < y & "more".' in "".join(tags.text["p"])


def test_the_page_needs_nothing_else(told: Story, tags: Tags) -> None:
    page = told.page()
    assert not re.search(r"https?:|//|@import|url\(|<link|<img|<iframe", page.replace("</", ""))
    assert all(value and value.startswith("#") for name, value in tags.attributes if name in ("href", "src"))
    assert "prefers-color-scheme: dark" in page
    assert "position: sticky" in page


def test_the_page_carries_the_source_around_each_step(told: Story, tags: Tags) -> None:
    sources = json.loads("".join(tags.text["script"]).partition("const sources")[0])
    at = [value for name, value in tags.attributes if name == "data-at"]
    assert at
    for place in at:
        _where, first, own, lines = sources[place]
        assert lines[own - first].strip() in {row.source for row in told.rows}


# ---- names -----------------------------------------------------------------------------------------------------------


def test_promises_are_the_contracts() -> None:
    contract = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^## (G\d+) (.*)$", contract, re.M)) == PROMISES


def test_words_of_a_segment_have_names() -> None:
    seg = layout.Seg(*SMALL)
    name = namer(SMALL, layout)
    assert name(seg.procinfo + const.PI_STATE) == "proc.state"
    assert name(layout.vcpd_at(seg, 1) + const.VCPD_NOTIF_PENDING) == "vcore 1.notif_pending"
    assert name(layout.evq_at(seg, 0) + const.EVQ_ALERT) == "queue 0.alert"
    assert name(layout.map_at(seg, 1)) == "vcoremap 1"
    assert name(layout.mbox_at(seg, 0) + const.MB_CHECK_BITS) == "vcore 0's public mailbox.check_bits"
    assert name(layout.mbox_at(seg, 4) + const.MB_HEAD) == "queue 0's mailbox.head"
    slot = layout.page_at(seg, 2) + const.PAGE_HEADER + const.SLOT_SIZE
    assert name(slot + const.SL_ARG1) == "page 2.slot 1.arg1"
    assert name(layout.span_at(seg, 0) + const.SP_BLOCKS + const.BLOCK_STRIDE) == "span 0.block 1.word"
    assert name(layout.page_at(seg, 1) + const.PG_NEXT + 2) == "page 1.next+2"


# ---- the guide -------------------------------------------------------------------------------------------------------


def test_the_guides_story_is_true(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "checking.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(# flags\.py\n.*?)^```", guide, re.M | re.S)
    (shown,) = re.findall(r"^## Reading a failure\n\n(.*?BROKEN.*?)\n\n[^ ]", guide, re.M | re.S)
    (tmp_path / "flags.py").write_text(program, encoding="utf-8")
    runner.load(str(tmp_path / "flags.py"))
    try:
        result = runner.run(runner.Job("flags", "tso"))
    finally:
        del SCENARIOS["flags"]
    assert result.story is not None
    assert textwrap.dedent(shown).splitlines() == result.story.lines(width=90)
