"""`upcall storm`: kills and stops at random, and looks whether anything was lost."""

from __future__ import annotations

import random

import click

from .show import json_option


@click.command(short_help="Kill and stop senders and workers at random; is anything lost?")
@click.option("--senders", type=click.IntRange(1, 64), default=2, show_default=True, help="Sender processes.")
@click.option("--vcores", type=click.IntRange(1, 64), default=4, show_default=True, help="Worker processes.")
@click.option("--seconds", type=click.FloatRange(0.1), default=30.0, show_default=True, help="How long.")
@click.option("--rate", type=click.FloatRange(0.1, 1000), default=20.0, show_default=True, help="Hits a second.")
@click.option("--seed", type=click.IntRange(0), help="Of the choice whom to hit, and what to send (default: random).")
@click.option("--supervisor/--no-supervisor", default=True, help="Hit it, too, now and then; another one takes over.")
@click.option("--thread", is_flag=True, help="With a queue whose handlers run in uthread context, and are interrupted.")
@click.option("--peer", "peers", metavar="NAME", multiple=True, help="Another system instead, or all; again for more.")
@click.option("--tries", type=click.IntRange(1), default=30, show_default=True, help="With --peer: kills, one each.")
@json_option
def storm(
    senders: int,
    vcores: int,
    seconds: float,
    rate: float,
    seed: int | None,
    supervisor: bool,
    thread: bool,
    peers: tuple[str, ...],
    tries: int,
    as_json: bool,
) -> None:
    """Kill and stop senders, workers and the supervisor of a process at random while events of every kind are sent, and
    check the books.

    Each event whose send returned must be handled at least once; again only after a death, once for each; in order; and
    nothing may be left over or hang. Exit code 1 if anything is wrong; then the segment is kept, and its place printed.
    Ctrl-C ends it early, with a verdict.

    With --peer the same is tried with another system: mp.Queue, mp.SimpleQueue, faster-fifo, pyzmq, iceoryx2,
    iceoryx2-overflow, or upcall, or all of them. In each try one participant is killed; what is lost, does it hang?

    \b
    Examples:
      upcall storm
      upcall storm --seconds 600 --rate 20 --senders 4
      upcall storm --seed 7 --json
      upcall storm --peer all --tries 10
    """
    from ..storm import Plan, run, run_peers

    chosen = random.randrange(1 << 32) if seed is None else seed
    if peers:
        raise SystemExit(run_peers(list(peers), tries, chosen, as_json=as_json))
    raise SystemExit(run(Plan(senders, vcores, seconds, rate, chosen, supervisor, thread), as_json=as_json))
