"""How fast luamigrate is and what it costs the server, beside what else does the work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench import endless, jobs, kinds, raw
from bench.contenders import (
    VERIFY,
    Measured,
    client_pipeline,
    five_round_trips,
    luamigrate,
    pipeline_in_go,
    run_pipeline_in_go,
)
from bench.pairs import COLUMNS, measure, show
from bench.setting import Bench

SLOWEST, SLOW_SAMPLE = "five round trips", 5_000
"""A contender that would take too long with all keys and rounds, and how many keys it gets."""

Work = Callable[[], Measured]


def show_clients(bench: Bench) -> None:
    """Show a run beside programs that copy and compare from a client."""
    with pipeline_in_go() as program:
        contenders: dict[str, Work] = {
            "raw pipeline, two HGETALL": partial(raw.copy, bench.url),
            "raw pipeline, two DUMP": partial(raw.copy, bench.url, raw.DUMP),
            "redis-py pipeline, two HGETALL": partial(client_pipeline, bench.client, bench.keys // 4),
            SLOWEST: partial(five_round_trips, bench.client, min(bench.keys, SLOW_SAMPLE)),
        }
        if program:
            contenders["Go, two HGETALL"] = partial(run_pipeline_in_go, program, bench.url)
        else:
            print("SKIPPED: the pipeline in Go, because there is no Go compiler")
        bench.table.begin("run beside a client", *COLUMNS)
        for name, contender in contenders.items():
            rounds = 1 if name == SLOWEST else bench.rounds
            show(bench.table, name, *measure(bench.client, rounds, contender, bench.run_all, bench.clear))
    bench.clear()


def show_limit(bench: Bench) -> None:
    """Show a run beside one endless script that blocks everybody: what no batch and no network can beat."""
    pairs: tuple[tuple[str, Work, Work], ...] = (
        ("run: the same script", partial(endless.shipped, bench.client, validate=True), bench.run_all),
        ("run: field by field", partial(endless.field_by_field, bench.client), bench.run_all),
        (
            "run --no-validate: the same",
            partial(endless.shipped, bench.client, validate=False),
            partial(bench.run_all, "--no-validate"),
        ),
    )
    bench.table.begin("beside one endless script", *COLUMNS)
    for name, contender, ours in pairs:
        show(bench.table, name, *measure(bench.client, bench.rounds, contender, ours, bench.clear))
    bench.clear()


def show_again(bench: Bench) -> None:
    """Show what it takes to verify, and to run again, where all targets are there already."""
    bench.run_all()
    bench.table.begin("beside a raw pipeline that compares", *COLUMNS)
    verify = partial(luamigrate, bench.url, *VERIFY)
    pairs: tuple[tuple[str, Work, raw.Reading], ...] = (
        ("verify: two HGETALL", verify, raw.FIELDS),
        ("verify: two DUMP", verify, raw.DUMP),
        ("run again: two DUMP", bench.run_all, raw.DUMP),
    )
    for name, ours, reading in pairs:
        contender = partial(raw.compare, bench.url, reading)
        show(bench.table, name, *measure(bench.client, bench.rounds, contender, ours))
    bench.clear()


def show_kinds(bench: Bench) -> None:
    """Show a run beside a raw pipeline, for each kind of keys."""
    bench.table.begin("beside a raw pipeline", *COLUMNS)
    for kind in kinds.ALL:
        bench.client.flushall()
        count = kind.fill(bench.url, bench.keys)
        reading = kind.reading(bench.client)
        contender = partial(raw.copy, bench.url, reading)
        ours = partial(luamigrate, bench.url, "run", "--quiet", "--json", "--map", "job:*=step:*", "--type", kind.type)
        clear = partial(jobs.clear, bench.client, count)
        theirs, own = measure(bench.client, bench.rounds, contender, ours, clear)
        assert all(one.copied == count for one in theirs + own), f"{kind.name}: not all {count} keys are copied"
        show(bench.table, f"{kind.name}: {reading.command.decode()}", theirs, own)
