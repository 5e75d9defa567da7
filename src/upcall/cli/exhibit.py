"""`upcall check --exhibit`: what is known to break in others' algorithms, explored again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UpcallError
from .check import echo_story, keep, result_json, run_jobs
from .show import console, print_json, table

if TYPE_CHECKING:
    from ..check.exhibits import Showing
    from ..check.runner import Result


def show_exhibit(
    exhibit: str, names: tuple[str, ...], models: tuple[str, ...], seconds: float, jobs: int, save: Path | None,
    page: Path | None, all_steps: bool, as_json: bool,
) -> bool:  # fmt: skip
    """Explores an exhibit's scenarios, or those of these names, under the models that each names, or those asked for.
    True if all came out as known. "list": prints the exhibits and what each shows."""
    from ..check import exhibits

    if exhibit == "list":
        _list(as_json)
        return True
    chosen = exhibits.showings(exhibit)
    known = [showing.name for showing in chosen]
    for name in names:
        if name not in known:
            raise UpcallError(f"exhibit {exhibit!r} has no scenario {name!r}: it has {', '.join(known)}")
    chosen = [showing for showing in chosen if not names or showing.name in names]
    todo = [
        showing.job(model, seconds)
        for showing in chosen
        for model in showing.models
        if model in (models or showing.models)
    ]
    if not todo:
        raise UpcallError(f"exhibit {exhibit!r} shows nothing under {', '.join(models)}")
    results = run_jobs(todo, jobs)
    surprises = {id(result): _unexpected(exhibits.SHOWINGS[result.job.scenario], result) for result in results}
    try:
        if as_json:
            print_json([{**result_json(result), "unexpected": surprises[id(result)]} for result in results])
        else:
            _report(results, surprises, all_steps)
    finally:  # also if nobody reads the report to its end
        keep([result for result in results if result.story is not None], save, page)
    return not any(surprises.values())


def _unexpected(showing: Showing, result: Result) -> str:
    broken = result.story.broken if result.story is not None else None
    return showing.unexpected(result.job.model, broken, result.verdict.complete)


def _list(as_json: bool) -> None:
    from ..check import exhibits

    if as_json:
        print_json([_known(showing) for showing in exhibits.SHOWINGS.values()])
        return
    for name, about in exhibits.EXHIBITS.items():
        click.echo(click.wrap_text(f"{name}: {' '.join(about.split())}", 100) + "\n")
        for showing in exhibits.showings(name):
            known = f"breaks under {', '.join(showing.broken)}" if showing.broken else "holds"
            click.echo(f"  {showing.name}: {known}")
            click.echo(click.wrap_text(showing.about, 100, "    ", "    "))
        click.echo()


def _known(showing: Showing) -> dict[str, Any]:
    return {
        "exhibit": showing.exhibit,
        "scenario": showing.name,
        "about": showing.about,
        "models": showing.models,
        "broken": showing.broken,
        "deaths": showing.deaths,
        "stops": showing.stops,
        "bounds": showing.bounds,
    }


def _report(results: list[Result], surprises: dict[int, str], all_steps: bool) -> None:
    for result in results:
        if result.story is not None:
            echo_story(result.story, all_steps)
    rows = []
    for result in results:
        verdict = result.verdict
        known = surprises[id(result)] or ("yes, it is known to break" if not verdict.ok else "yes, it is known to hold")
        rows.append(
            (result.job.scenario, verdict.model, verdict.deaths, verdict.stops, result.said, verdict.states, known)
        )
    columns = ("scenario", "model", "#deaths", "#stops", "verdict", "#states", "as known?")
    console().print(table("", columns, rows))
