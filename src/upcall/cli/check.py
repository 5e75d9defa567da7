"""`upcall check`: explores everything that can happen, in upcall's own protocol or in scenarios of one's own."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .show import console, json_option, print_json, table

if TYPE_CHECKING:
    from ..check.runner import Job, Result
    from ..check.story import Story

MODELS = ("sc", "tso", "ra")
DEFAULT = ("sc", "tso")
MINUTES, MINUTES_OF_ALL = 4.0, 50.0
"""What the default set may take, and everything; on two cores most of it is explored to its end in that."""


@click.command(short_help="Explore every interleaving, store buffer and death in scenarios.")
@click.argument("scenarios", metavar="[FILE.py[::SCENARIO]|SCENARIO]...", nargs=-1)
@click.option("--model", type=click.Choice(MODELS), multiple=True, help="Memory models (default: sc and tso).")
@click.option("--deaths", type=click.IntRange(0, 4), help="How many actors may be killed, before any access.")
@click.option("--stops", type=click.IntRange(0, 4), help="How many may stop for ever, before any access.")
@click.option("--all", "everything", is_flag=True, help="Every model, two deaths; programs with known verdicts, too.")
@click.option("--random", "runs", type=click.IntRange(1), default=None, help="So many random runs in place of all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random runs.")
@click.option("--depth", type=click.IntRange(1, 10), default=3, show_default=True, help="Orderings that a fault needs.")
@click.option("--preemptions", type=click.IntRange(0), help="Only runs with at most so many switches.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    help="Limit per exploration (default: 60; 120 with --all; 10 per place with --necessity).",
)
@click.option("--minutes", type=click.FloatRange(0.01), help="For all of them (upcall's own: 4; 50 with --all).")
@click.option(
    "--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="Explorations at once (default: all cores)."
)
@click.option("--exhibit", help="What is known to break in others' algorithms: a name, or 'list'.")
@click.option("--necessity", is_flag=True, help="Take out each fence, test and order of the protocol: what breaks?")
@click.option(
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the table there: what was explored, or --necessity's.",
)
@click.option("--list", "only_list", is_flag=True, help="List the scenarios.")
@click.option("--save", type=click.Path(file_okay=False, path_type=Path), help="Write violations into this folder.")
@click.option(
    "--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Tell a saved violation again."
)
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write the first story as a page."
)
@click.option("--all-steps", is_flag=True, help="Stories with the steps that nobody else could see.")
@json_option
def check(
    scenarios: tuple[str, ...], model: tuple[str, ...], deaths: int | None, stops: int | None, preemptions: int | None,
    everything: bool, runs: int | None, seed: int, depth: int, seconds: float | None, minutes: float | None, jobs: int,
    exhibit: str | None, necessity: bool, write: Path | None, only_list: bool, save: Path | None, replay: Path | None,
    page: Path | None, all_steps: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run SCENARIOs: small programs of a few actors on shared memory, in every way that they can go. Without arguments:
    all of upcall's own, which run the very source that is compiled. FILE.py: all that it registers with
    @upcall.check.scenario; FILE.py::SCENARIO: one of them.

    A promise that can be broken is shown as a story, one row for each step, with as few switches as it needs. A verdict is
    "complete" if every state was seen; else it says what was not. Exit code 1 if anything is broken; of an exhibit, where
    some scenarios are known to break, if anything is not as known. With --necessity the arguments are texts in the names of
    places (file:function: text); exit code 1 if nothing breaks without one of them, and nothing says why it stays.

    --minutes is shared out: each exploration gets its part of what is left when it begins. One that does not see everything
    in most of its time is explored with 0, 1, 2 ... switches in the rest, and says how far it came.

    --random does not explore: it makes runs by random priorities, in which a fault that needs few orderings is likely to
    show, however large the scenario; its verdict says how likely.

    \b
    Models:
      sc    every interleaving of accesses
      tso   x86: stores wait in a buffer, and reach memory in order, later
      ra    C11's release and acquire, as on ARM: a load may read an older store than the newest

    \b
    Examples:
      upcall check
      upcall check --list
      upcall check litmus classics
      upcall check --all --write explored.md
      upcall check --minutes 1
      upcall check two_send --random 10000 --depth 4
      upcall check my_lock.py --model tso --html story.html
      upcall check my_lock.py --deaths 1 --save found/
      upcall check --replay found/my_lock-tso.json
      upcall check --exhibit list
      upcall check --exhibit seed seed_round_robin_of_none
      upcall check --necessity
      upcall check --necessity kern/ucq.py handle_bits
    """
    try:
        from ..check import runner
    except ImportError as error:
        raise click.ClickException(
            f"the checker needs greenlet and Cython ({error}): pip install 'upcall[check]'"
        ) from None
    if replay is not None:
        _replay(replay, page, all_steps)
        return
    if necessity:
        from .necessity import show_necessity

        explained = show_necessity(scenarios, model or MODELS, seconds, jobs, write, as_json)
        sys.exit(0 if explained else 1)
    seconds = seconds if seconds is not None else 120.0 if everything else 60.0
    if exhibit is not None:
        from .exhibit import show_exhibit

        as_known = show_exhibit(exhibit, scenarios, model, seconds, jobs, save, page, all_steps, as_json)
        sys.exit(0 if as_known else 1)
    if only_list:
        _list(scenarios)
        return
    if everything:
        todo = _asked_for(scenarios, runner.all_jobs(seconds))
    else:
        todo = _jobs(scenarios, model, deaths, stops, preemptions, seconds)
    if runs is not None:
        todo = [dataclasses.replace(job, runs=runs, seed=seed, depth=depth) for job in todo]
    if minutes is None and not scenarios:
        minutes = MINUTES_OF_ALL if everything else MINUTES
    results = run_jobs([dataclasses.replace(job, deepen=True) for job in todo], jobs, minutes)
    try:
        _report(results, as_json, all_steps, write)
    finally:  # also if nobody reads the report to its end
        keep([result for result in results if not result.job.breaks and result.story is not None], save, page)
    sys.exit(0 if all(result.ok for result in results) else 1)


def _replay(saved: Path, page: Path | None, all_steps: bool) -> None:
    """A saved violation's story, with what has changed since."""
    from ..check import runner

    story, changed = runner.replay(saved)
    for line in changed:
        click.echo(f"changed since it was saved: {line}", err=True)
    echo_story(story, all_steps)
    if page is not None:
        page.write_text(story.page())


def echo_story(story: Story, everything: bool) -> None:
    """Prints a story, as wide as the terminal; in colour on one."""
    wide = console()
    click.echo("\n".join(story.lines(everything=everything, width=wide.width, color=wide.is_terminal)) + "\n")


def keep(broken: list[Result], save: Path | None, page: Path | None) -> None:
    """Writes violations into a folder, the first one's story as a page, if asked."""
    from ..check import runner

    if save is not None and broken:
        save.mkdir(parents=True, exist_ok=True)
        for result in broken:
            runner.save(result, save / f"{result.job.scenario}-{result.job.model}.json")
    if page is not None and broken and broken[0].story is not None:
        page.write_text(broken[0].story.page())


def _list(asked: tuple[str, ...]) -> None:
    """Names of scenarios, with what they are about."""
    from ..check.plan import SCENARIOS
    from ..check.runner import about, load

    rows = [
        ("file", each, (SCENARIOS[each].__doc__ or "").partition("\n")[0])
        for name in asked
        if _file_of(name)[0]
        for each in load(_file_of(name)[0])
    ]
    if not rows:
        rows = [row for row in about() if not asked or row[0] in asked or row[1] in asked]
    wide = max((len(name) for _, name, _ in rows), default=0)
    for group, name, said in rows:
        click.echo(f"{group:<9} {name:<{wide}}  {said}")


def _file_of(asked: str) -> tuple[str, str]:
    """FILE.py and FILE.py::SCENARIO in their parts; ("", "") for what is no file."""
    file, _, one = asked.partition("::")
    return (file, one) if file.endswith(".py") else ("", "")


def _asked_for(asked: tuple[str, ...], jobs: list[Job]) -> list[Job]:
    """Those of these scenarios, or of these groups; all, if none is named."""
    from ..check.runner import about

    group = {name: group for group, name, _ in about()}
    known = dict.fromkeys([*group, *group.values()])
    for name in asked:
        if name not in known:
            _no_scenario(name, known)
    return [job for job in jobs if not asked or job.scenario in asked or group[job.scenario] in asked]


def _no_scenario(name: str, known: Iterable[str]) -> NoReturn:
    near = get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise click.ClickException(f"no scenario {name!r}: {hint}see upcall check --list, or give a FILE.py")


def _jobs(
    asked: tuple[str, ...], models: tuple[str, ...], deaths: int | None, stops: int | None, preemptions: int | None,
    seconds: float,
) -> list[Job]:  # fmt: skip
    """What to explore."""
    from ..check.runner import Job, known_jobs, load, own_jobs

    found: list[Job] = []
    for file, one in (_file_of(name) for name in asked):
        if file:
            registered = load(file)
            if one and one not in registered:
                raise click.ClickException(f"{file} registers no scenario {one!r}: it has {', '.join(registered)}")
            found += [
                Job(each, model, deaths or 0, stops or 0, preemptions, seconds, str(Path(file).resolve()))
                for each in ([one] if one else registered)
                for model in models or DEFAULT
            ]
    names = [name for name in asked if not _file_of(name)[0]]
    if names or not asked:
        own = own_jobs(models, seconds)
        known = {job.scenario for job in own}
        others = known_jobs(models, seconds)
        for name in names:
            if name in others:
                found += others[name]
            elif name not in known and name != "protocol":
                _no_scenario(name, [*known, *others])
        for job in own:
            if not names or job.scenario in names or "protocol" in names:
                changes: dict[str, Any] = {
                    key: value
                    for key, value in (("deaths", deaths), ("stops", stops), ("preemptions", preemptions))
                    if value is not None
                }
                found.append(dataclasses.replace(job, **changes))
    return found


def run_jobs(todo: list[Job], jobs: int, minutes: float | None = None) -> list[Result]:
    """Runs all, in so many minutes if given; shows how they stand, with a line for each as it ends."""
    from ..check.running import run_all
    from .standing import Display

    start = time.monotonic()
    results = []
    with Display() as display:
        seconds = None if minutes is None else 60 * minutes
        for number, result in enumerate(run_all(todo, jobs, seconds, display.stands if display.live else None), 1):
            results.append(result)
            display.ended(number, len(todo), result)
    click.echo(f"{len(results)} exploration(s) in {time.monotonic() - start:.1f} s: {in_all(results)}", err=True)
    order = {(job.scenario, job.model): k for k, job in enumerate(todo)}
    return sorted(results, key=lambda result: order[result.job.scenario, result.job.model])


def in_all(results: Iterable[Result]) -> str:
    """What a run has seen, and how fast each model goes, over all its explorations."""
    verdicts = [result.verdict for result in results]
    speeds = ", ".join(
        f"{model} {sum(v.accesses for v in mine) / max(sum(v.cpu for v in mine), 1e-6):,.0f}"
        for model in MODELS
        if (mine := [v for v in verdicts if v.model == model])
    )
    states, accesses, ran = (sum(getattr(v, what) for v in verdicts) for what in ("states", "accesses", "ran"))
    return f"{states:,} states, {accesses:,} accesses, {ran:,} times code ran for one; accesses/s/core: {speeds}"


def _report(results: list[Result], as_json: bool, all_steps: bool, write: Path | None) -> None:
    if write is not None:
        from ..check import explored

        write.write_text(explored.page(results, explored.read(write)))
    if as_json:
        print_json([result_json(result) for result in results])
        return
    rows = [
        (
            result.job.scenario, v.model, v.deaths, v.stops,
            result.said, v.states, v.accesses, v.ran, f"{v.speed:,.0f}", f"{v.seconds:.1f}",
        )
        for result in results
        for v in (result.verdict,)
    ]  # fmt: skip
    columns = (
        "scenario",
        "model",
        "#deaths",
        "#stops",
        "verdict",
        "#states",
        "#accesses",
        "#run",
        "#accesses/s/core",
        "#s",
    )
    console().print(table("", columns, rows))
    for result in results:
        if result.story is not None and not result.job.breaks:
            echo_story(result.story, all_steps)


def result_json(result: Result) -> dict[str, Any]:
    """One result for programs."""
    found = dataclasses.asdict(result)
    found["verdict"].pop("violation")
    found["broken"] = result.story.broken if result.story is not None else None
    return found
