"""`upcall check --necessity`: what breaks without each fence, owner test, look again and order of the protocol's sources."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import click

from .show import console, print_json, table

PAGE = Path("docs/necessity.md")
"""The table of an earlier run, below the folder that one is in: it says where to look first."""
SECONDS = 10.0
"""CPU time for each place."""


def show_necessity(
    patterns: Sequence[str], models: Sequence[str], seconds: float | None, jobs: int, write: Path | None, as_json: bool
) -> bool:
    """Takes out every place whose name contains one of these texts (none given: every place), one at a time, and says what
    breaks. `write`: the table goes there too;
    rows of places that were not looked at stay. True if for each place some scenario fails, or it is said why none does."""
    from ..check import necessity
    from ..check.sites import DONE, all_sites

    every = all_sites()
    sites = [site for site in every if not patterns or any(text in site.name for text in patterns)]
    if not sites:
        raise click.ClickException(
            f"no fence, test or order has {' or '.join(patterns)} in its name (file:function: text)"
        )
    before = necessity.read(write if write is not None else PAGE)
    start = time.monotonic()
    found = []
    for each in necessity.look_at_all(sites, models, seconds or SECONDS, jobs, before):
        found.append(each)
        said = f"{each.scenario} ({each.model})" if each.needed else "explained" if each.explained else "nothing breaks"
        click.echo(f"[{len(found)}/{len(sites)}] {each.site.name}: {said}, {each.seconds:.1f} s", err=True)
    found.sort(key=lambda each: (each.site.file, each.site.at))
    needed = [each for each in found if each.needed]
    unexplained = [each for each in found if not each.explained]
    if as_json:
        print_json([necessity.as_json(each) for each in found])
    else:
        rows = [
            (each.site.file, each.site.function, each.site.text, DONE[each.site.kind],
             each.scenario or "-", f"{each.model} {each.switches}" if each.needed else "", each.broken or each.why)
            for each in found
        ]  # fmt: skip
        console().print(table("", ("file", "function", "what", "without it", "scenario", "model", "what breaks"), rows))
    if write is not None:
        write.write_text(necessity.page(found, every, before))
    times = [each.seconds for each in needed]
    middle = (
        f"; found in {statistics.median(times):.2f} s of CPU time (median), at most {max(times):.1f} s" if times else ""
    )
    click.echo(
        f"{len(found)} places: without {len(needed)} a scenario fails, {len(found) - len(needed) - len(unexplained)} are "
        f"explained, {len(unexplained)} are open{middle}; {time.monotonic() - start:.0f} s",
        err=True,
    )
    return not unexplained
