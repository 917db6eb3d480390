"""`make bench`: how near to the limit, beside what else people use, and in how much memory."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from statistics import median

import redis

from bench.contenders import (
    RUN,
    VERIFY,
    Measured,
    client_pipeline,
    endless_script,
    five_round_trips,
    luamigrate,
    plain_luamigrate,
)
from luamigrate.demo import throwaway_server
from tests import binaries

BATCH = 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--server", default="valkey-9.1", choices=binaries.NAMES)
    parser.add_argument("--keys", type=int, default=1_000_000, help="jobs of ten fields")
    parser.add_argument("--rounds", type=int, default=5, help="pairs measured in turn; the median counts")
    options = parser.parse_args()
    binary = binaries.find(options.server)
    if not isinstance(binary, Path):
        parser.error(f"{options.server}: {binary}")
    # An endless script is what the limit is; the server must not complain of it.
    with throwaway_server(binary, "--lua-time-limit", "1000000") as url:
        client = redis.Redis.from_url(url, socket_timeout=3600, protocol=2)
        fill(client, options.keys)
        print(f"{options.server}, {options.keys:,} hashes of ten fields, loopback, {options.rounds} rounds")
        compare_rates(client, url, options.keys, options.rounds)
        measure_memory(client, url, options.keys)
        compare_comparisons(client, url, options.keys, options.rounds)
        client.close()
    measure_start()


def fill(client: redis.Redis, keys: int, note: str = "") -> None:
    """Write jobs as a job system does; a long note makes each hash a hashtable."""
    chance = random.Random(1)
    for first in range(0, keys, BATCH):
        pipeline = client.pipeline(transaction=False)
        for number in range(first, min(first + BATCH, keys)):
            pipeline.hset(
                f"job:{number:08}",
                items=[
                    *("id", number, "status", chance.choice(("pending", "active", "completed"))),
                    *("type", "thumbnail", "queue", "default", "priority", chance.randint(1, 9)),
                    *("attempts", chance.randint(0, 3), "created_at", "2026-11-23T07:00:00Z"),
                    *("updated_at", "2026-11-23T07:00:30Z", "worker", f"worker-{chance.randint(1, 12)}"),
                    *("payload", f'{{"customer": {chance.randint(1, 99_999)}, "locale": "en"}}{note}'),
                ],
            )
        pipeline.execute()


def clear(client: redis.Redis, keys: int) -> None:
    """Remove the targets."""
    for first in range(0, keys, BATCH):
        client.unlink(*(f"step:{number:08}" for number in range(first, min(first + BATCH, keys))))


def compare_rates(client: redis.Redis, url: str, keys: int, rounds: int) -> None:
    """Measure each way right after the limit, so that both meet the same machine."""
    slow_sample = min(keys, 50_000)
    ways: list[tuple[str, bool, int, Callable[[], Measured]]] = [
        ("luamigrate run", True, rounds, lambda: luamigrate(url)),
        ("luamigrate run --no-validate", False, rounds, lambda: luamigrate(url, *RUN, "--no-validate")),
        ("client pipeline: COPY, two HGETALL", True, 1, lambda: client_pipeline(client, slow_sample * 4)),
        ("five round trips per key", True, 1, lambda: five_round_trips(client, slow_sample)),
    ]
    print(f"{'':36}{'keys/s':>10}{'limit':>10}{'ratio':>8}   pairs")
    for name, validate, pairs, measure in ways:
        rates, limits = [], []
        for _ in range(pairs):
            limits.append(rate(endless_script(client, validate=validate)))
            clear(client, keys)
            rates.append(rate(measure()))
            clear(client, keys)
        print_ratios(name, rates, limits)


def compare_comparisons(client: redis.Redis, url: str, keys: int, rounds: int) -> None:
    """Measure the shipped comparison right after a plain one, in the same program."""
    print(f"{'':36}{'keys/s':>10}{'plain':>10}{'ratio':>8}   pairs")
    with plain_luamigrate() as plain:
        for encoding, note in (("compact hashes", ""), ("hashtables", "x" * 64)):
            fill(client, keys, note)
            clear(client, keys)
            luamigrate(url)
            for name, options in (("verify", VERIFY), ("run again", RUN)):
                rates, plains = [], []
                for _ in range(rounds):
                    plains.append(rate(luamigrate(url, *options, program=plain)))
                    rates.append(rate(luamigrate(url, *options)))
                print_ratios(f"{name}, {encoding}", rates, plains)


def print_ratios(name: str, rates: list[float], others: list[float]) -> None:
    """Print medians, the median ratio, and the ratio of each pair."""
    ratios = [one / other for one, other in zip(rates, others, strict=True)]
    each = " ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"{name:36}{median(rates):>10,.0f}{median(others):>10,.0f}{median(ratios):>8.2f}   {each}", flush=True)


def rate(measured: Measured) -> float:
    """Return keys per second."""
    assert measured.copied, "nothing was copied"
    return measured.copied / measured.seconds


def measure_memory(client: redis.Redis, url: str, keys: int) -> None:
    """Show that Python's memory does not depend on the number of keys."""
    # "job:0000*" gives its targets names that clear() knows.
    few = luamigrate(url, "run", "--quiet", "--map", "job:0000*=step:0000*", "--type", "hash")
    clear(client, keys)
    whole = luamigrate(url)
    clear(client, keys)
    print(
        f"peak memory of Python: {few.peak_memory_mb:.0f} MB for {few.copied:,} keys, "
        f"{whole.peak_memory_mb:.0f} MB for {whole.copied:,}"
    )
    print(f"processor time of Python per key: {whole.cpu_seconds / whole.copied * 1e6:.1f} µs")


def measure_start() -> None:
    """Show what it takes to be helped."""
    cpu = median(luamigrate("redis://localhost", "--help").cpu_seconds for _ in range(5))
    print(f"luamigrate --help: {cpu:.2f} s of processor time")


if __name__ == "__main__":
    main()
