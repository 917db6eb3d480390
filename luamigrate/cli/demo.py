"""The demo: sample jobs on a throwaway server, and every step shown with the real command."""

from __future__ import annotations

import json
import random
import shlex
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any

import redis

from luamigrate.cli import console
from luamigrate.cli.embedded import embedded_binary, throwaway_server
from luamigrate.cli.options import environment
from luamigrate.cli.signals import Interruption
from luamigrate.model.errors import Exit
from luamigrate.model.following import digest_of, record_of
from luamigrate.model.plans import BUILT_IN

JOBS = 4_000
SECONDS_OF_WORK = 4.0
SECONDS_BETWEEN_JOBS = 0.002
SECONDS_TO_CATCH_UP = 1.0
STEPS = (
    ("Could it work here? The checks alone:", ("check",)),
    ("First a dry run, which writes nothing:", ("run", "--dry-run")),
    ("Now copy. Sources stay as they are, and so does what is half-written, job:7's target:", ("run",)),
    (
        "Exit code 3: finished, but job:7's target only holds a part of it. Once more, completing such targets:",
        ("run", "--on-existing", "fill"),
    ),
    ("Is every copy identical?", ("verify",)),
    ("And back: which copies could be deleted without losing anything?", ("rollback", "--dry-run")),
)


def show(*, keep: bool) -> Exit:
    """Show run, verify and rollback on a throwaway server. Raises Error."""
    with Interruption(), throwaway_server(embedded_binary()) as url:
        with redis.Redis.from_url(url) as client:
            fill(client)
        console.say(
            f"A throwaway server is up at {url}. It holds {JOBS:,} jobs and four collections, among them a job that\n"
            "expires, one with binary data, a job: key that is no hash, and a half-written target."
        )
        for text, options in STEPS:
            console.say(f"\n{text}\n\n$ luamigrate {shlex.join(options)}")
            code = _luamigrate(url, *options)
            console.say(f"\n(exit code {code})")
            if code not in (Exit.OK, Exit.UNFINISHED):
                return Exit(code)
        code = follow(url)
        if code != Exit.OK:
            return Exit(code)
        if keep:
            _keep(url)
    console.say("\nThe server is stopped, and nothing is left behind.")
    return Exit.OK


def _luamigrate(url: str, *arguments: str) -> int:
    command = (sys.executable, "-m", "luamigrate", *arguments)
    return subprocess.run(command, env=environment(REDIS_URL=url), check=False).returncode


def follow(url: str) -> int:
    """Show a follow beside an application that goes on writing, and that the names are in step after it."""
    console.say(
        f"\nNow the application goes on working, on the old names only. For {SECONDS_OF_WORK:.0f} seconds every change "
        "is followed;\nthen Ctrl-C:\n\n$ luamigrate follow"
    )
    command = (sys.executable, "-m", "luamigrate", "follow")
    with subprocess.Popen(command, env=environment(REDIS_URL=url)) as process:
        with redis.Redis.from_url(url) as client:
            # Until then it compares; what is changed before it would refuse to overwrite.
            while process.poll() is None and not client.exists(record_of(digest_of(BUILT_IN))):
                time.sleep(SECONDS_BETWEEN_JOBS)
            work(client, SECONDS_OF_WORK)
        time.sleep(SECONDS_TO_CATCH_UP)
        process.terminate()
        code = process.wait()
    console.say(f"\n(exit code {code})")
    if code:
        return code
    console.say("\nIs every copy still identical?\n\n$ luamigrate verify --extra")
    code = _luamigrate(url, "verify", "--extra")
    console.say(f"\n(exit code {code})")
    return code


def work(client: redis.Redis, seconds: float) -> None:
    """Do what a job system does, for some seconds: take jobs, finish them, delete them, and enqueue others."""
    chance, end = random.Random(2), time.monotonic() + seconds
    for number in count(JOBS + 1):
        if time.monotonic() > end:
            return
        pipeline = client.pipeline(transaction=False)
        pipeline.hset(f"job:{number}", mapping=_job(number, "pending", chance))
        pipeline.zadd("jobs:pending", {str(number): 1})
        taken = chance.randint(1, number)
        pipeline.zrem("jobs:pending", taken)
        pipeline.hset(f"job:{taken}", "status", "active")
        pipeline.smove("jobs:active", "jobs:completed", str(chance.randint(1, number)))
        pipeline.delete(f"job:{chance.randint(1, number)}")
        pipeline.execute()
        time.sleep(SECONDS_BETWEEN_JOBS)


def _keep(url: str) -> None:
    """Leave the server up with fresh sample jobs, until Ctrl-C or its end."""
    with redis.Redis.from_url(url) as client, suppress(KeyboardInterrupt, redis.ConnectionError):
        client.flushall()
        fill(client)
        program = sys.argv[0] if sys.argv[0].endswith("luamigrate") else "python -m luamigrate"
        console.say(f"\nThe server stays up at {url}, the jobs are as they were at first. Ctrl-C ends it.")
        console.say(f"In another terminal: export REDIS_URL={url}, then {program} run --dry-run")
        while client.ping():
            time.sleep(1)


def fill(client: redis.Redis) -> None:
    """Write jobs as a job system leaves them, hard cases included."""
    chance = random.Random(1)
    pipeline = client.pipeline(transaction=False)
    for number in range(1, JOBS + 1):
        status = chance.choice(("pending", "pending", "active", "completed", "completed", "failed"))
        pipeline.hset(f"job:{number}", mapping=_job(number, status, chance))
        if status == "pending":
            pipeline.zadd("jobs:pending", {str(number): chance.randint(1, 9) + number / 1e6})
        else:
            pipeline.sadd(f"jobs:{status}", number)
    pipeline.expire("job:3", 86_400)
    pipeline.hset("job:5", "payload", zlib.compress(b"a picture, say") + bytes(range(256)))
    pipeline.hset("step:7", mapping={"status": "active"})
    pipeline.hset("job:7", mapping={"status": "active"})
    pipeline.set("job:counter", JOBS)
    pipeline.execute()


def _job(number: int, status: str, chance: random.Random) -> Mapping[Any, str | int]:
    minute = f"2026-11-{chance.randint(1, 28):02}T{chance.randint(0, 23):02}:{chance.randint(0, 59):02}"
    return {
        "id": number,
        "status": status,
        "type": chance.choice(("email", "thumbnail", "invoice", "export")),
        "queue": chance.choice(("default", "high", "low")),
        "priority": chance.randint(1, 9),
        "attempts": chance.randint(0, 3),
        "created_at": f"{minute}:00Z",
        "updated_at": f"{minute}:30Z",
        "worker": f"worker-{chance.randint(1, 12)}",
        "payload": json.dumps({"customer": chance.randint(1, 99_999), "locale": "en"}),
    }
