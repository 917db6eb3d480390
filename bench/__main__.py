"""`make bench`: how near to the limit, beside what else people use; what others feel; and in how much memory."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import redis

from bench import endless, jobs, shards
from bench.contenders import (
    RUN,
    VERIFY,
    Measured,
    client_pipeline,
    five_round_trips,
    help_seconds,
    luamigrate,
    plain_luamigrate,
    scan,
    seconds_of,
)
from bench.feel import felt_during
from bench.links import slow_link
from bench.record import recorded
from luamigrate.cli.embedded import throwaway_server
from luamigrate.model.limits import Limits
from tests import binaries

KEYS_HELP = """jobs, keys to search, members of a large key; with few of them the start of luamigrate's process is most
of what it takes"""

IDLE_SECONDS = 5
ROUND_TRIP_MS = 1.0
MAX_PAUSE_MS = Limits().max_pause

SLOW_SAMPLE, LINK_SAMPLE, CLUSTER_SAMPLE = 50_000, 1_000, 100_000
"""Keys for contenders that would take too long with all of them."""


@dataclass(frozen=True)
class Bench:
    """A server, what is on it, and how often to measure."""

    client: redis.Redis
    url: str
    binary: Path
    keys: int
    rounds: int

    def clear(self) -> None:
        """Remove the targets."""
        jobs.clear(self.client, self.keys)

    def run_all(self, *options: str) -> Measured:
        """Have luamigrate copy all jobs, at the default settings but for these options."""
        measured = luamigrate(self.url, *RUN, *options)
        assert measured.copied == self.keys, f"{measured.copied} of {self.keys} keys copied"
        return measured


def show_rates(bench: Bench) -> None:
    """Measure each contender right after its rival, so that both meet the same machine."""
    client, sample = bench.client, min(bench.keys, SLOW_SAMPLE)
    limit = partial(endless.shipped, client, validate=True)
    limit_unvalidated = partial(endless.shipped, client, validate=False)
    pairs: tuple[tuple[str, int, Callable[[], Measured], Callable[[], Measured]], ...] = (
        ("run : the same in one script", bench.rounds, bench.run_all, limit),
        ("run --no-validate : likewise", bench.rounds, partial(bench.run_all, "--no-validate"), limit_unvalidated),
        ("run : one script, field by field", bench.rounds, bench.run_all, partial(endless.field_by_field, client)),
        ("COPY, two HGETALL, pipelined : limit", 1, partial(client_pipeline, client, sample * 4), limit),
        ("five round trips per key : limit", 1, partial(five_round_trips, client, sample), limit),
    )
    print_heading()
    for name, rounds, measure, against in pairs:
        rates, others = [], []
        for _ in range(rounds):
            others.append(against().rate)
            bench.clear()
            rates.append(measure().rate)
            bench.clear()
        print_ratios(name, rates, others)


def show_feel(bench: Bench) -> None:
    """Show what a second client feels: of nothing, of a run from its start to its end, of one endless script."""
    print_columns("a second client waits, ms")
    works: tuple[tuple[str, Callable[[], object]], ...] = (
        ("nobody else there", partial(time_passes, bench.client)),
        ("during luamigrate run", bench.run_all),
        ("during the same in one script", partial(endless.shipped, bench.client, validate=True)),
    )
    for name, work in works:
        felt = felt_during(bench.url, work)
        bench.clear()
        print_waits(name, len(felt.waits), felt.percentile)


def time_passes(client: redis.Redis) -> None:
    """Wait, as a client that is blocked does."""
    client.blpop(["nothing-comes"], timeout=IDLE_SECONDS)


def show_record(bench: Bench) -> None:
    """Show how long scripts and SCANs blocked the server in a run, by its own record and by luamigrate's."""
    measured, record = recorded(bench.client, 10_000 + bench.keys // 10, bench.run_all)
    bench.clear()
    assert record.scripts.count
    assert record.scans.count
    print_columns("blocked by a run, ms, as the server has it")
    for name, commands in (("scripts", record.scripts), ("SCANs", record.scans)):
        print_waits(name, commands.count, commands.percentile)
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


def show_comparisons(bench: Bench) -> None:
    """Measure the shipped comparison right after a plain one, in the same program."""
    print_heading("plain")
    with plain_luamigrate() as plain:
        for encoding, fill in (("compact hashes", jobs.fill), ("hashtables", jobs.fill_with_hashtables)):
            fill(bench.client, bench.keys)
            bench.clear()
            luamigrate(bench.url)
            for name, options in (("verify", VERIFY), ("run again", RUN)):
                rates, plains = [], []
                for _ in range(bench.rounds):
                    plains.append(luamigrate(bench.url, *options, program=plain).rate)
                    rates.append(luamigrate(bench.url, *options).rate)
                print_ratios(f"{name}, {encoding}", rates, plains)


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
    work = median(float(one.document["duration_seconds"]) for one in runs)
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


def show_shards(bench: Bench) -> None:
    """Measure pairs in two slots beside what a client does with them, and beside the same sources' pairs in one."""
    keys = min(bench.keys, CLUSTER_SAMPLE)
    for primaries in shards.PRIMARIES:
        with shards.cluster(bench.binary, primaries, keys) as cluster:
            show_rates_across(cluster, bench.rounds, f"primaries: {primaries}; {keys:,} keys")
            for verb in ("run", "verify"):
                show_costs_across(cluster, verb)


def show_rates_across(cluster: shards.Cluster, rounds: int, heading: str) -> None:
    """Show how many keys go across slots in a second."""
    whole: defaultdict[str, list[float]] = defaultdict(list)
    working: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for size in shards.BATCHES:
            cluster.clear()
            whole[f"client by {size}"].append(shards.client_restores(cluster, size).rate)
        for where, rule in shards.RULES.items():
            cluster.clear()
            for verb in ("run", "verify"):
                measured = cluster.luamigrate(verb, rule)
                whole[verb + where].append(measured.rate)
                working[verb + where].append(measured.working_rate)
    print_heading(title=heading)
    for client in (name for name in whole if name.startswith("client")):
        print_ratios(f"run : {client}", whole["run"], whole[client])
        print_ratios(f"run, from connecting on : {client}", working["run"], whole[client])
    for verb in ("run", "verify"):
        print_ratios(f"{verb} : in one slot", whole[verb], whole[f"{verb} in one slot"])
        print_ratios(f"{verb}, from connecting on : likewise", working[verb], working[f"{verb} in one slot"])


def show_costs_across(cluster: shards.Cluster, verb: str) -> None:
    """Show what a key across slots takes, of the nodes' time and of Python's."""
    if verb == "run":
        cluster.clear()
    work = partial(cluster.luamigrate, verb, shards.CROSS_SLOT)
    measured, record = recorded(cluster.client, 10_000 + cluster.keys // 10, work)
    nodes, scans, python, *each = (
        f"{seconds / cluster.keys * 1e6:.1f}"
        for seconds in (
            record.processor_seconds,
            record.scans.seconds,
            measured.cpu_seconds,
            *record.seconds_of.values(),
        )
    )
    by_script = ", ".join(map(" ".join, zip(record.seconds_of, each, strict=True)))
    print(
        f"{verb}, µs per key: nodes' processors {nodes} (scripts: {by_script}; SCAN {scans}), Python's {python}, the "
        f"start included; scripts p99 {record.scripts.percentile(99):.2f} ms, longest {record.scripts.longest:.2f} ms",
        flush=True,
    )


def show_start(bench: Bench) -> None:
    """Show what it takes to be helped."""
    del bench
    print(f"luamigrate --help: {help_seconds():.2f} s of processor time")


@dataclass(frozen=True)
class Section:
    """Something to measure, and what it needs on the server."""

    name: str
    show: Callable[[Bench], None]
    fill: Callable[[redis.Redis, int], None] | None


SECTIONS = (
    Section("rates", show_rates, jobs.fill),
    Section("feel", show_feel, jobs.fill),
    Section("record", show_record, jobs.fill),
    Section("link", show_link, jobs.fill),
    Section("memory", show_memory, jobs.fill),
    Section("comparisons", show_comparisons, None),
    Section("sparse", show_sparse, jobs.fill_sparsely),
    Section("big", show_large, jobs.fill_large),
    Section("shards", show_shards, None),
    Section("start", show_start, None),
)


def main() -> None:
    """Measure and print."""
    options = parse()
    # An endless script is what the limit is; the server must not complain of it.
    with throwaway_server(options.binary, "--lua-time-limit", "1000000") as url:
        client = connect(url)
        bench = Bench(client, url, options.binary, options.keys, options.rounds)
        print(f"{options.server}, {options.keys:,} hashes of ten fields, loopback, {options.rounds} rounds")
        filled: Callable[[redis.Redis, int], None] | None = None
        for section in SECTIONS:
            if options.only and section.name not in options.only:
                continue
            if section.fill is not filled or not section.fill:
                client.flushall()
                if section.fill:
                    section.fill(client, options.keys)
                filled = section.fill
            section.show(bench)
        client.close()


def connect(url: str) -> redis.Redis:
    """Connect for commands that may take long."""
    return redis.Redis.from_url(url, socket_timeout=3600, protocol=2)


def print_heading(against: str = "against", title: str = "") -> None:
    """Print what the columns of print_ratios are."""
    print(f"{title:40}{'keys/s':>10}{against:>10}{'ratio':>8}   pairs")


def print_ratios(name: str, rates: list[float], others: list[float]) -> None:
    """Print medians, the median ratio, and the ratio of each pair."""
    ratios = [one / other for one, other in zip(rates, others, strict=True)]
    each = " ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"{name:40}{median(rates):>10,.0f}{median(others):>10,.0f}{median(ratios):>8.2f}   {each}", flush=True)


def print_columns(what: str) -> None:
    """Print what the columns of print_waits are."""
    print(f"{what:40}{'count':>10}{'p50':>9}{'p99':>9}{'p99.9':>9}{'longest':>9}")


def print_waits(name: str, count: int, percentile: Callable[[float], float]) -> None:
    """Print how many there were, and how long they took."""
    waits = "".join(f"{percentile(percent):>9.2f}" for percent in (50, 99, 99.9, 100))
    print(f"{name:40}{count:>10,}{waits}", flush=True)


def parse() -> argparse.Namespace:
    """Return the options, with the server's binary."""
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--server", default="valkey-9.1", choices=binaries.NAMES)
    parser.add_argument("--keys", type=int, default=1_000_000, help=KEYS_HELP)
    parser.add_argument("--rounds", type=int, default=5, help="pairs measured in turn; the median counts")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"some of {','.join(names)}")
    options = parser.parse_args()
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    options.binary = binaries.find(options.server)
    if not isinstance(options.binary, Path):
        parser.error(f"{options.server}: {options.binary}")
    return options


if __name__ == "__main__":
    main()
