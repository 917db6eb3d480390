"""`make bench`: luamigrate beside what else does the work, what others feel meanwhile, and in how much memory.

Each part takes less than a minute on two idle cores, unless more keys or rounds are asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from bench import cutovers, following, jobs, load, shards, speed
from bench.setting import Bench, connect
from bench.table import Table
from luamigrate.cli.embedded import throwaway_server
from tests import binaries

KEYS_HELP = """jobs, keys to search, members of a large key; parts that take longer use fewer; with few of them the
start of luamigrate's process is most of what it takes"""


@dataclass(frozen=True)
class Part:
    """Something to measure, and what it needs on the server."""

    name: str
    show: Callable[[Bench], None]
    fill: Callable[[redis.Redis, int], None] | None
    about: str


PARTS = (
    Part("clients", speed.show_clients, jobs.fill, "run beside pipelines (by hand, Go, redis-py), five round trips"),
    Part("limit", speed.show_limit, jobs.fill, "run beside one endless script"),
    Part("again", speed.show_again, jobs.fill, "verify and run again, beside a pipeline that compares"),
    Part("kinds", speed.show_kinds, None, "run beside a pipeline by hand, for all kinds of keys"),
    Part("shards", shards.show_shards, None, "run and verify in a cluster of three"),
    Part("follow", following.show_follow, None, "what a follow takes of the application's writes, and its lag"),
    Part("cutover", cutovers.show_cutovers, None, "for how long a cut-over freezes writes, and what is lost"),
    Part("feel", load.show_feel, jobs.fill, "how long a second client waits"),
    Part("pace", load.show_pace, jobs.fill, "what the size of batches, the longest pause and a rate change"),
    Part("record", load.show_record, jobs.fill, "how long scripts block the server, by its own record"),
    Part("link", load.show_link, jobs.fill, "over a slow link"),
    Part("memory", load.show_memory, jobs.fill, "Python's memory"),
    Part("sparse", load.show_sparse, jobs.fill_sparsely, "to find one key in a thousand"),
    Part("big", load.show_large, jobs.fill_large, "large keys in chunks"),
    Part("start", load.show_start, None, "help, and a run with few keys"),
)


def main() -> None:
    """Measure and print."""
    options = parse()
    # An endless script is what the limit is; the server must not complain of it.
    with throwaway_server(options.binary, "--lua-time-limit", "1000000") as url, connect(url) as client:
        bench = Bench(client, url, options.binary, options.keys, options.rounds, Table(options.markdown))
        server: Any = client.info("server")
        version = server.get("valkey_version") or server["redis_version"]
        print(f"{options.server} ({version}), {options.keys:,} hashes of ten fields, loopback, {options.rounds} rounds")
        filled: Callable[[redis.Redis, int], None] | None = None
        for part in PARTS:
            if options.only and part.name not in options.only:
                continue
            if part.fill is not filled or not part.fill:
                client.flushall()
                if part.fill:
                    part.fill(client, options.keys)
                filled = part.fill
            part.show(bench)


def parse() -> argparse.Namespace:
    """Return the options, with the server's binary."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__,
        epilog="parts:\n" + "\n".join(f"  {part.name:9}{part.about}" for part in PARTS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--server", default="valkey-9.1", choices=binaries.NAMES)
    parser.add_argument("--keys", type=int, default=200_000, help=KEYS_HELP)
    parser.add_argument("--rounds", type=int, default=3, help="pairs measured in turn; the median counts")
    parser.add_argument("--only", type=lambda text: text.split(","), help="some parts, with commas between them")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    options = parser.parse_args()
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    options.binary = binaries.find(options.server)
    if not isinstance(options.binary, Path):
        parser.error(f"{options.server}: {options.binary}")
    return options


if __name__ == "__main__":
    main()
