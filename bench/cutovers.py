"""Cut-overs and the way back beside an application that counts: for how long writes are frozen, and what is lost."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import jobs
from bench.contenders import JOBS
from bench.counting import FIELD, OLD, Account, counting
from bench.setting import Bench
from luamigrate.cli.options import environment

MOST_KEYS = 5_000
FLIPS_IN_A_ROUND = 10
SECONDS_BETWEEN_FLIPS = 0.3
SECONDS_WITHOUT = 5.0
"""For which the application is measured with nobody who cuts over."""
FLAG, NEW = "app:names", "step:"
KINDS = {"a cut-over": (), "a cut-over with --prove": ("--prove",)}


@dataclass
class Flips:
    """What became of some flips."""

    frozen_ms: list[float] = field(default_factory=list)
    refused: int = 0
    """How often it was given up after all attempts, and asked for again."""
    attempts: int = 0
    """The attempts of the cut-overs that were not refused."""
    stragglers: int = 0


def show_cutovers(bench: Bench) -> None:
    """Show the application beside a follow alone, and beside cut-overs and ways back by turns."""
    keys = min(bench.keys, MOST_KEYS)
    bench.table.begin(
        "12 connections count",
        *("flips", "refused", "attempts", "frozen p50", "p90", "longest", "longest wait", "counted", "unknown"),
        *("lost", "doubled", "stragglers", "load"),
    )
    _show(bench, keys, "a follow alone", (), 0)
    for name, options in KINDS.items():
        _show(bench, keys, name, options, FLIPS_IN_A_ROUND * bench.rounds)


def _show(bench: Bench, keys: int, name: str, options: tuple[str, ...], count: int) -> None:
    bench.client.flushall()
    jobs.fill(bench.client, keys)
    with _following(bench.url, *options) as path, counting(bench.url, FLAG, keys) as account:
        time.sleep(SECONDS_BETWEEN_FLIPS if count else SECONDS_WITHOUT)
        flips = _flipped(path, count)
    lost, doubled = _compared(bench, account, keys)
    frozen = sorted(flips.frozen_ms)
    bench.table.add(
        name,
        *(str(count), str(flips.refused), str(flips.attempts)),
        *(f"{_percentile(frozen, share):.1f}" if frozen else "-" for share in (0.5, 0.9, 1.0)),
        *(f"{account.longest_ms:.1f}", f"{account.counted.total():,}", str(account.unknown)),
        *(str(lost), str(doubled), str(flips.stragglers), f"{os.getloadavg()[0]:.1f}"),
    )


def _percentile(values: list[float], share: float) -> float:
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _flipped(path: str, count: int) -> Flips:
    """Cut over and go back by turns; writes are the old names' again where the count is even."""
    flips = Flips()
    for number in range(count):
        while "error" in (told := _told(path, "back" if number % 2 else "cutover")):
            flips.refused += 1
            assert flips.refused <= count, told
        flips.frozen_ms.append(told["freeze_ms"])
        flips.attempts += told["attempts"]
        flips.stragglers = told["stragglers"]
        time.sleep(SECONDS_BETWEEN_FLIPS)
    return flips


def _told(path: str, word: str) -> dict[str, Any]:
    """Say a word to the follow, without a process that would take time from it at that very moment."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(f"{word}\n".encode())
        with connection.makefile("rb") as lines:
            answer: dict[str, Any] = json.loads(lines.readline())
    return answer


def _is_in_step(path: str) -> bool:
    with suppress(FileNotFoundError, ConnectionRefusedError):  # it does not listen yet
        return bool(_told(path, "status")["in_step"])
    return False


def _compared(bench: Bench, account: Account, keys: int) -> tuple[int, int]:
    """Return how many confirmed increments are not there, and how many are there that were not confirmed."""
    names = bench.client.get(FLAG)
    prefix = names.decode() if isinstance(names, bytes) else OLD
    lost = doubled = 0
    for number in range(keys):
        key = f"{number:08}"
        there, counted = int(bench.client.hget(prefix + key, FIELD) or 0), account.counted[key]
        lost += max(0, counted - there)
        doubled += max(0, there - counted)
    return lost, doubled


@contextmanager
def _following(url: str, *options: str) -> Iterator[str]:
    """Follow with a flag; yield the path of the socket once it is in step."""
    with tempfile.TemporaryDirectory(prefix="luamigrate-") as folder:
        path = str(Path(folder) / "control")
        flip = ("--flip", f"{FLAG}={NEW}", "--control", path)
        command = (sys.executable, "-m", "luamigrate", "follow", *JOBS, *flip, "--settle", "0", *options)
        process = subprocess.Popen(
            command, env=environment(REDIS_URL=url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            while not _is_in_step(path):
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            yield path
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate()
        assert process.returncode == 0, err
