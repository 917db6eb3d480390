"""No status word depends on the clock of the machine that luamigrate runs on: the servers compare expiries."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

import luamigrate as package
from tests.conftest import luamigrate
from tests.instances import Instance

HOUR = 3600
FIELDS = {"large": 900, "small": 10}
"""Of a hash that takes several scripts where one may take but a tenth of a millisecond, and of one that does not."""
EXPIRING = [
    (600, 1800, "expiry", "kept"),
    (1800, 600, "expiry", "removed"),
    (600, 600, "same", "removed"),
    (None, 600, "expiry", "removed"),
    (600, None, "expiry", "kept"),
]
"""Seconds that source and target have left; what verify says of them, and rollback."""


def write(server: Instance, source: str, target: str, size: str, seconds: tuple[int | None, int | None]) -> None:
    """Write a hash and an equal one, expiring after so many seconds, or to the same millisecond after as many."""
    client: Any = server.client
    moment = int(client.time()[0]) * 1000
    for key, left in zip((source, target), seconds, strict=True):
        client.hset(key, mapping={f"field{number}": f"value{number}" * 8 for number in range(FIELDS[size])})
        if left:
            client.pexpireat(key, moment + left * 1000)


@pytest.mark.parametrize("size", FIELDS)
@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_a_wrong_clock_of_ours_changes_no_word(
    server: Instance, monkeypatch: pytest.MonkeyPatch, size: str, hours: int
) -> None:
    """Be it an hour fast or slow: verify and rollback say what the servers' clocks say, in one slot or in two."""
    wrong = time.time() + hours * HOUR
    monkeypatch.setattr(time, "time", lambda: wrong)
    for source_left, target_left, compared, rolled_back in EXPIRING:
        server.client.flushall()
        write(server, "job:1", "step:1", size, (source_left, target_left))
        options = ("--map", "job:*=step:*", "--max-pause", "0.1", "--json")
        verified = luamigrate("verify", *options, url=server.url)
        assert verified.totals == {"found": 1, compared: 1, "ignored": 0}, (source_left, target_left)
        returned = luamigrate("rollback", "--yes", *options, url=server.url)
        assert returned.totals == {"found": 1, rolled_back: 1, "ignored": 0}, (source_left, target_left)
        assert server.client.exists("job:1") == 1
        assert server.client.exists("step:1") == (rolled_back == "kept")


def test_expiries_that_differ_by_less_than_a_second_are_the_same_and_others_are_not(server: Instance) -> None:
    """As the docs say, for small keys and for large ones, in one slot or in two."""
    for size in FIELDS:
        for milliseconds, word in ((900, "same"), (1100, "expiry"), (-900, "same"), (-1100, "expiry")):
            server.client.flushall()
            write(server, "job:1", "step:1", size, (600, 600))
            expires_at: Any = int(server.client.execute_command("TIME")[0]) * 1000 + 500_000
            server.client.pexpireat("job:1", expires_at)
            server.client.pexpireat("step:1", expires_at + milliseconds)
            result = luamigrate("verify", "--map", "job:*=step:*", "--max-pause", "0.1", "--json", url=server.url)
            assert result.totals == {"found": 1, word: 1, "ignored": 0}, (size, milliseconds)


def test_nothing_asks_for_the_time_of_day_here() -> None:
    """Only intervals are measured on this machine, by clocks that nobody sets."""
    asking = re.compile(r"\btime\.time(_ns)?\(|\bdatetime\b|\blocaltime\b|\bgmtime\(\)")
    files = list(Path(package.__file__).parent.glob("**/*.py"))
    assert files
    assert [file.name for file in files if asking.search(file.read_text())] == []
