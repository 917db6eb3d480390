"""luamigrate as a whole process, and the programs that copy a namespace from a client."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import redis

from luamigrate.cli.embedded import embedded_binary, throwaway_server
from luamigrate.cli.options import environment

SOURCE, TARGET = b"job:", b"step:"
JOBS = ("--quiet", "--json", "--map", "job:*=step:*", "--type", "hash")
RUN = ("run", *JOBS)
VERIFY = ("verify", *JOBS)

PIPELINE_IN_GO = Path(__file__).parent / "pipeline.go"


@dataclass(frozen=True)
class Measured:
    """One measurement of one contender."""

    seconds: float
    copied: int
    """Keys that were copied, or found to be the same."""
    peak_memory_mb: float = 0.0
    cpu_seconds: float = 0.0
    """Processor time of the client."""
    server_seconds: float = 0.0
    """Processor time of the server; of all nodes of a cluster."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """luamigrate's own figures."""

    @property
    def rate(self) -> float:
        """Keys per second."""
        assert self.copied, "nothing was copied"
        return self.copied / self.seconds

    @property
    def working_seconds(self) -> float:
        """From connecting on: luamigrate's process takes its time to start."""
        return float(self.document.get("duration_seconds", self.seconds))

    @property
    def working_cpu_seconds(self) -> float:
        """Processor time of the client without what luamigrate's process takes to start."""
        return self.cpu_seconds - (start_cpu_seconds() if self.document else 0)

    @property
    def working_rate(self) -> float:
        """Keys per second, from connecting on."""
        assert self.copied, "nothing was copied"
        return self.copied / self.working_seconds


def luamigrate(url: str, *options: str) -> Measured:
    """Run the command line as a whole process."""
    command = (sys.executable, "-m", "luamigrate", *(options or RUN))
    out, usage, seconds = _run(command, environment(REDIS_URL=url))
    document = json.loads(out) if "--json" in (options or RUN) else {}
    totals = document.get("totals", {})
    # macOS counts bytes here, Linux kilobytes.
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return Measured(
        seconds,
        totals.get("copied", 0) + totals.get("same", 0),
        usage.ru_maxrss / unit,
        usage.ru_utime + usage.ru_stime,
        document=document,
    )


def _run(
    command: tuple[str, ...], variables: dict[str, str] | None = None
) -> tuple[str, resource.struct_rusage, float]:
    """Return what a program printed, what it took of the machine, and for how many seconds it ran."""
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout
        out = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        assert process.returncode == 0, out + errors.read().decode()
    return out, usage, seconds


@cache
def start_cpu_seconds() -> float:
    """Return the processor time that luamigrate's process takes with a server on which there is nothing."""
    with throwaway_server(embedded_binary()) as url:
        return median(luamigrate(url, *RUN, "--allow-empty").cpu_seconds for _ in range(3))


def seconds_of(work: Callable[[], object]) -> float:
    """Do the work and return how long that took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def help_seconds() -> float:
    """Return the processor time that it takes to be helped."""
    return median(luamigrate("redis://localhost", "--help").cpu_seconds for _ in range(5))


@contextmanager
def pipeline_in_go() -> Iterator[Path | None]:
    """Build the Go program in a folder that is there for so long only; yield None where there is no Go compiler."""
    compiler = shutil.which("go")
    if not compiler:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="luamigrate-") as directory:
        program = Path(directory) / "pipeline"
        # A compiler that is too old is not to load another.
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        subprocess.run((compiler, "build", "-o", program, PIPELINE_IN_GO), check=True, env=environment, cwd=directory)
        yield program


def run_pipeline_in_go(program: Path, url: str) -> Measured:
    """Run the Go program, which copies all jobs and compares their fields."""
    out, usage, _ = _run((str(program), urlsplit(url).netloc))
    answer = json.loads(out)
    return Measured(answer["seconds"], answer["copied"], cpu_seconds=usage.ru_utime + usage.ru_stime)


def client_pipeline(client: redis.Redis, most: int) -> Measured:
    """COPY and two HGETALL in pipelines of 500 keys, compared in Python."""

    def copy(names: list[bytes]) -> int:
        pipeline = client.pipeline(transaction=False)
        for name in names:
            target = TARGET + name.removeprefix(SOURCE)
            pipeline.execute_command("COPY", name, target)
            pipeline.hgetall(name)
            pipeline.hgetall(target)
        replies = iter(pipeline.execute())
        return sum(bool(made) and one == other for made, one, other in zip(replies, replies, replies, strict=True))

    return _by_batches(client, most, 500, copy)


def five_round_trips(client: redis.Redis, most: int) -> Measured:
    """EXISTS, HGETALL, HMSET and two HGETALL, one after the other for each key."""

    def copy(names: list[bytes]) -> int:
        copied = 0
        for name in names:
            target = TARGET + name.removeprefix(SOURCE)
            if not client.exists(target):
                content: Any = client.hgetall(name)
                client.hset(target, mapping=content)
                copied += client.hgetall(name) == client.hgetall(target)
        return copied

    return _by_batches(client, most, 100, copy)


def scan(client: redis.Redis) -> Measured:
    """Only look for the jobs, a thousand keys at a time; `copied` is how many there are."""
    began = time.perf_counter()
    found = sum(1 for _ in client.scan_iter(match=b"job:*", count=1000))
    return Measured(time.perf_counter() - began, found)


def _by_batches(client: redis.Redis, most: int, size: int, copy: Callable[[list[bytes]], int]) -> Measured:
    names: Iterator[Any] = islice(client.scan_iter(match=b"job:*", count=1000), most)
    began, processor = time.perf_counter(), time.process_time()
    copied = 0
    while batch := list(islice(names, size)):
        copied += copy(batch)
    return Measured(time.perf_counter() - began, copied, cpu_seconds=time.process_time() - processor)
