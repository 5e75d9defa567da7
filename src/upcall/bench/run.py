"""Runs rows for systems, one row after the other, so that what is compared was measured within seconds; and reports."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..cli.show import console, print_json, table
from . import own, peers
from .bars import Verdict, ratio, verdicts
from .measure import median
from .own.running import NAME
from .sample import ROWS, Sample, System


@cache
def systems() -> Mapping[str, System]:
    """upcall, then every peer, those that are not installed included."""
    return {system.name: system for system in (*own.systems(), *peers.systems())}


def run(
    rows: Sequence[str] = (),
    only: Sequence[str] = (),
    *,
    scale: float = 1.0,
    as_json: bool = False,
) -> int:
    """Measures the rows (all if none are named) of the systems (likewise) and prints tables, or JSON. Returns the
    command's exit code: 1 if a system that is here could not be measured.

    ValueError for a row or system that does not exist. Progress goes to stderr.
    """
    wanted_rows, wanted = known("row", rows, ROWS), known("system", only, systems())
    samples: list[Sample] = []
    try:
        for sample in measure(wanted_rows, wanted, scale):
            samples.append(sample)
    except KeyboardInterrupt:
        print("stopped: what was measured until now", file=sys.stderr)
        _report(samples, scale, as_json)
        raise
    _report(samples, scale, as_json)
    return 0 if all(sample.measured for sample in samples) else 1


def known(what: str, names: Sequence[str], all_of: Mapping[str, object]) -> list[str]:
    """The names in the table's order, or all. ValueError for one that is not there, with those that are."""
    for name in names:
        if name not in all_of:
            raise ValueError(f"no {what} {name!r} (there are: {', '.join(all_of)})")
    return [name for name in all_of if not names or name in names]


def measure(rows: Iterable[str], names: Sequence[str], scale: float) -> Iterator[Sample]:
    """The samples, row by row, upcall first; in a row the systems take turns, `passes_for` times."""
    here = []
    for name in names:
        if why := systems()[name].available():
            print(f"left out: {name}: {why}", file=sys.stderr)
        else:
            here.append(systems()[name])
    passes = passes_for(scale)
    jobs = [(row, system) for row in rows for system in here if row in system.rows()]
    done = 0
    for row in rows:
        taken: dict[str, list[Sample]] = {system.name: [] for system in here if row in system.rows()}
        for _ in range(passes):
            for name, samples in taken.items():
                done += 1
                print(f"[{done}/{passes * len(jobs)}] {row}: {name}", file=sys.stderr, flush=True)
                samples.append(systems()[name].rows()[row](scale))
        yield from (merged(samples) for samples in taken.values())


def passes_for(scale: float) -> int:
    """How often all systems take turns in a row. A machine that others share changes its pace within seconds: in turns,
    all of them see the same of it."""
    return 3 if scale >= 0.5 else 1


def merged(samples: Sequence[Sample]) -> Sample:
    """One sample of a system's passes: the median of their medians and that of their p99. Passes without a value do not
    count, unless all are without."""
    good = [sample for sample in samples if sample.measured]
    if not good:
        return samples[-1]
    high = [sample.p99 for sample in good if sample.p99 is not None]
    return dataclasses.replace(
        good[-1],
        median=median(sample.median for sample in good),
        p99=median(high) if high else None,
        runs=sum(sample.runs for sample in good),
    )


def _report(samples: Sequence[Sample], scale: float, as_json: bool) -> None:
    found = verdicts(samples)
    if as_json:
        print_json(
            {
                "machine": machine(),
                "scale": scale,
                "rows": [_row_as_dict(row, samples) for row in ROWS if any(s.row == row for s in samples)],
                "verdicts": [dataclasses.asdict(verdict) for verdict in found],
            }
        )
        return
    out = console()
    facts = machine()
    out.print(
        f"{facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}, Python {facts['python']}; scale {scale:g}"
    )
    for row in ROWS:
        if any(sample.row == row for sample in samples):
            out.print(_row_table(row, samples))
    if figures := [_verdict_cells(verdict) for verdict in found if verdict.peer is None]:
        out.print(table("Figures to reach", ["row", "#measured", "unit", "#bar", "#goal", "met"], figures))
    if raced := [_verdict_cells(verdict) for verdict in found if verdict.peer is not None]:
        title = "Fastest peers that carry a message: how many times as fast as upcall, and how much is let pass"
        out.print(table(title, ["row", "#measured", "peer", "#at most", "", "met"], raced))


def machine() -> dict[str, Any]:
    """What this run was made on."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def _ratios(row: str, samples: Sequence[Sample]) -> Iterator[tuple[Sample, float | None]]:
    """The row's samples, each with how many times better upcall is."""
    of_row = [sample for sample in samples if sample.row == row]
    mine = next((sample for sample in of_row if sample.system == NAME), None)
    for sample in of_row:
        yield sample, None if mine is None or mine is sample else ratio(mine, sample)


def _row_as_dict(row: str, samples: Sequence[Sample]) -> dict[str, Any]:
    listed = [sample.as_dict() | {"upcall_is_times_better": better} for sample, better in _ratios(row, samples)]
    return dataclasses.asdict(ROWS[row]) | {"samples": listed}


def _row_table(row: str, samples: Sequence[Sample]) -> Any:
    unit = ROWS[row].unit
    cells = []
    for sample, better in _ratios(row, samples):
        times = "" if better is None else f"{better:.2f}x"
        median = figure(sample.median) if sample.measured else "failed"
        high = "" if sample.p99 is None else figure(sample.p99)
        cells.append([sample.system, median, high, times, sample.pinning, sample.note])
    middle = "#per second" if ROWS[row].per_second else "#median"
    columns = ["system", middle, "#p99", "#upcall better by", "pinning", "notes"]
    return table(f"{row}, {unit}: {ROWS[row].what}", columns, cells)


def _verdict_cells(verdict: Verdict) -> list[str]:
    def cell(value: float | None) -> str:
        return "" if value is None else figure(value)

    met = "not measured" if verdict.met is None else "no" if not verdict.met else "goal" if verdict.goal_met else "yes"
    what = verdict.peer or verdict.unit
    return [verdict.row, cell(verdict.measured), what, cell(verdict.bar), cell(verdict.goal), met]


def figure(value: float) -> str:
    """A number for people: three digits that count, or more before the point."""
    if not value or math.isnan(value):
        return "0" if not value else "-"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.2f} M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:.1f} k"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
