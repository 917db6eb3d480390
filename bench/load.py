"""What luamigrate takes of others: waits, the server's time, the network, memory; and what it finds and splits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import redis

from bench import endless, jobs
from bench.contenders import five_round_trips, help_seconds, luamigrate, scan, seconds_of
from bench.feel import felt_during
from bench.links import slow_link
from bench.pairs import with_server_time
from bench.record import recorded
from bench.setting import Bench, connect
from luamigrate.model.limits import Limits

IDLE_SECONDS = 5
ROUND_TRIP_MS = 1.0
MAX_PAUSE_MS = Limits().max_pause

LINK_SAMPLE = 1_000
"""Keys for a client that waits for each answer over the slow link."""

WAITS = ("p50, ms", "p99", "p99.9", "longest")

PACES: tuple[tuple[str, ...], ...] = (
    (),
    ("--batch-size", "10"),
    ("--batch-size", "1000"),
    ("--max-pause", "1"),
    ("--max-pause", "50", "--batch-size", "1000"),
    ("--max-rate", "10000"),
)

FEW = 5_000
"""Keys of which luamigrate's start is most of the work."""


def show_feel(bench: Bench) -> None:
    """Show what a second client feels: of nothing, of a run from its start to its end, of one endless script."""
    bench.table.begin("a second client waits", "count", *WAITS)
    works: tuple[tuple[str, Callable[[], object]], ...] = (
        ("nobody else there", partial(time_passes, bench.client)),
        ("during luamigrate run", bench.run_all),
        ("during the same in one script", partial(endless.shipped, bench.client, validate=True)),
    )
    for name, work in works:
        _, felt = felt_during(bench.url, work)
        bench.clear()
        bench.table.add(name, f"{len(felt.waits):,}", *_waits(felt.percentile))


def time_passes(client: redis.Redis) -> None:
    """Wait, as a client that is blocked does."""
    client.blpop(["nothing-comes"], timeout=IDLE_SECONDS)


def show_record(bench: Bench) -> None:
    """Show how long scripts and SCANs blocked the server in a run, by its own record and by luamigrate's."""
    measured, record = recorded(bench.client, 10_000 + bench.keys // 10, bench.run_all)
    bench.clear()
    assert record.scripts.count
    assert record.scans.count
    bench.table.begin("blocked by a run, the server says", "count", *WAITS)
    for name, commands in (("scripts", record.scripts), ("SCANs", record.scans)):
        bench.table.add(name, f"{commands.count:,}", *_waits(commands.percentile))
    print(
        f"{record.scripts.part_within(MAX_PAUSE_MS):.3%} of the scripts within {MAX_PAUSE_MS:g} ms; slowest_script_ms "
        f"says {measured.document['slowest_script_ms']}; the server's processor was busy {record.busy:.0%} of the time"
    )


def show_link(bench: Bench) -> None:
    """Measure a run over a slow link, and five round trips per key over the same link."""
    with slow_link(bench.url, ROUND_TRIP_MS / 1000) as url:
        client = connect(url)
        client.ping()
        round_trip = median(seconds_of(client.ping) for _ in range(100))
        near = bench.run_all()
        bench.clear()
        far = luamigrate(url)
        bench.clear()
        trips = five_round_trips(client, min(bench.keys, LINK_SAMPLE))
        bench.clear()
        client.close()
    print(
        f"over a link with a round trip of {round_trip * 1000:.2f} ms: run {far.rate:,.0f} keys/s "
        f"({near.rate:,.0f} without it), five round trips per key {trips.rate:,.0f}, "
        f"ratio {far.rate / trips.rate:,.0f}"
    )


def show_memory(bench: Bench) -> None:
    """Show that Python's memory does not depend on the number of keys, and its processor time for each."""
    # "job:0000*" gives its targets names that clear() knows.
    few = luamigrate(bench.url, "run", "--quiet", "--json", "--map", "job:0000*=step:0000*", "--type", "hash")
    bench.clear()
    whole = bench.run_all()
    bench.clear()
    print(
        f"peak memory of Python: {few.peak_memory_mb:.0f} MB for {few.copied:,} keys, "
        f"{whole.peak_memory_mb:.0f} MB for {whole.copied:,}"
    )
    print(f"processor time of Python per key: {whole.cpu_seconds / whole.copied * 1e6:.1f} µs, the start included")


def show_pace(bench: Bench) -> None:
    """Show what batches and the longest pause do to the speed, to the server, and to a second client meanwhile."""
    bench.table.begin("run, and how long others wait", "keys/s", "server µs", *WAITS)
    for options in PACES:
        work = partial(with_server_time, bench.client, partial(bench.run_all, *options))
        measured, felt = felt_during(bench.url, work)
        bench.clear()
        cost = f"{measured.server_seconds / bench.keys * 1e6:.1f}"
        name = " ".join(options) or "at the defaults"
        bench.table.add(name, f"{measured.working_rate:,.0f}", cost, *_waits(felt.percentile))


def show_sparse(bench: Bench) -> None:
    """Show what it takes to find and copy one key in a thousand, beside only looking for them."""
    wanted = -(-bench.keys // jobs.ONE_IN)
    runs, scripts, clients = [], [], []
    for _ in range(bench.rounds):
        scripts.append(endless.scan(bench.client))
        clients.append(scan(bench.client))
        runs.append(luamigrate(bench.url))
        bench.clear()
    assert all(one.copied == wanted for one in runs + scripts + clients)
    whole = median(one.seconds for one in runs)
    work = median(one.working_seconds for one in runs)
    print(
        f"one key in {jobs.ONE_IN:,} of {bench.keys:,}: run {whole:.2f} s, {work:.2f} s of it from connecting on; "
        f"without copying: one script {median(one.seconds for one in scripts):.2f} s, "
        f"a client with COUNT 1000 {median(one.seconds for one in clients):.2f} s"
    )


def show_large(bench: Bench) -> None:
    """Show what it takes to copy and compare a large key in chunks, beside one COPY that blocks everybody."""
    for kind in jobs.LARGE_TYPES:
        source, target = f"big:{kind}", f"copied:{kind}"
        rule = ("--map", f"{source}={target}", "--type", kind)
        work = partial(luamigrate, bench.url, "run", "--quiet", "--json", *rule)
        measured, record = recorded(bench.client, 10_000 + bench.keys // 10, work)
        scripts = record.scripts
        assert measured.copied == 1
        bench.client.unlink(target)
        block = seconds_of(partial(bench.client.execute_command, "COPY", source, target))
        bench.client.unlink(target)
        print(
            f"a {kind} of {bench.keys:,} members: {measured.document['duration_seconds']:.2f} s in "
            f"{scripts.count:,} scripts, p99 {scripts.percentile(99):.2f} ms, longest {scripts.longest:.2f} ms "
            f"(slowest_script_ms says {measured.document['slowest_script_ms']}); a plain COPY blocks {block:.2f} s"
        )


def show_start(bench: Bench) -> None:
    """Show what it takes to be helped, and to copy so few keys that starting is most of the work."""
    jobs.fill(bench.client, FEW)
    runs = []
    for _ in range(bench.rounds):
        runs.append(luamigrate(bench.url))
        jobs.clear(bench.client, FEW)
    whole, work = (median(one.seconds for one in runs), median(one.working_seconds for one in runs))
    print(f"luamigrate --help: {help_seconds():.2f} s of processor time")
    print(f"run of {FEW:,} keys: {whole:.2f} s, {work:.2f} s of it from connecting on")


def _waits(percentile: Callable[[float], float]) -> tuple[str, ...]:
    return tuple(f"{percentile(percent):.2f}" for percent in (50, 99, 99.9, 100))
