"""The judge of a follow in the campaign: what a sound one leaves passes, and what is spoilt breaks its rule."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaos import worlds
from chaos.faults import possible_in_a_follow
from chaos.following import FOLLOWS, JOBS
from chaos.in_step import Followed, judge
from chaos.processes import LONGEST, Tool
from tests.clusters import wait_until
from tests.instances import Instance

pytestmark = pytest.mark.single_server("it is the judge that is judged")

SOURCE, TARGET, UNRELATED = b"job:mine", b"step:mine", b"other:1"
AT_MS = 10**13


@pytest.fixture
def sound(any_server: Instance, tmp_path: Path) -> Callable[[], Followed]:
    """Follow until it is in step; return what there is to judge at the moment of asking."""
    chance, now = random.Random(7), int(time.time() * 1000)
    drawn = {b"job:%d" % number: worlds.draw_stored(chance, now, with_moments=False) for number in range(30)}
    keys = {name: stored for name, stored in drawn.items() if not worlds.expires_meanwhile(stored)}
    keys[SOURCE] = worlds.Stored("hash", {b"a": b"1"}, AT_MS)
    unrelated = {UNRELATED: worlds.Stored("set", {b"a", b"b"})}
    worlds.write(any_server.client, keys | unrelated)
    arguments = ("follow", "--map", JOBS.rule, "--json", "--settle", "0")
    tool = Tool(tmp_path, any_server.url, arguments)
    tool.wait_until_begun(FOLLOWS, LONGEST)
    wait_until(lambda: tool.ask().startswith("in step"))
    other = tool.beside("run")
    wait_until(lambda: not other.is_under_way)
    tool.send(signal.SIGTERM)
    own, *refused = tool.wait()
    site: Any = SimpleNamespace(servers=lambda: [any_server])
    return partial(_case, site, unrelated, follows=[own], refused=refused)


def _case(site: Any, unrelated: worlds.Keys, **ended: Any) -> Followed:
    return Followed(
        site=site,
        sides=JOBS,
        faults=[],
        unrelated=unrelated,
        wanted="in step",
        state="in step",
        complaints=[],
        max_pause=5.0,
        found=worlds.observe([server.client for server in site.servers()], with_moments=False),
        **ended,
    )


def broken(case: Followed) -> set[int]:
    """Return the numbers of the rules that a case breaks."""
    return {number for number, _ in judge(case)}


def test_what_a_sound_follow_leaves_breaks_no_rule(sound: Callable[[], Followed]) -> None:
    """A run beside it was refused."""
    assert judge(sound()) == []


@pytest.mark.parametrize(
    ("command", "rule"),
    [
        (("DEL", UNRELATED), 2),
        (("SREM", UNRELATED, "a"), 2),
        (("SET", "luamigrate:follow:left", "1"), 5),
        (("SET", "luamigrate:followed:left", "1"), 5),
        (("DEL", TARGET), 9),
        (("HSET", TARGET, "a", "2"), 9),
        (("PEXPIREAT", TARGET, AT_MS + 1), 9),
        (("DEL", SOURCE), 9),
        (("SET", "step:nobody", "1"), 9),
    ],
    ids=str,
)
def test_what_is_spoilt_breaks_its_rule(
    any_server: Instance, sound: Callable[[], Followed], command: tuple[Any, ...], rule: int
) -> None:
    """Which is named."""
    any_server.client.execute_command(*command)
    assert broken(sound()) == {rule}


def test_a_follow_that_lies_breaks_its_rule(sound: Callable[[], Followed]) -> None:
    """Or one beside which something else ran, or that was never in step, or had the server keep too much for it."""
    case = sound()
    (own,), (beside,) = case.follows, case.refused
    assert broken(replace(case, follows=[replace(own, out="")])) == {6}
    assert broken(replace(case, follows=[replace(own, code=3)])) == {6}
    assert broken(replace(case, follows=[own, own])) == {6}
    assert broken(replace(case, follows=[replace(own, out=own.out.replace('"foreign_seen": 0', '"foreign_seen": 1'))]))
    assert broken(replace(case, follows=[replace(own, out=own.out.replace('"in_step": true', '"in_step": false'))]))
    assert broken(replace(case, refused=[replace(beside, code=0)])) == {6}
    assert 8 in broken(replace(case, refused=[replace(beside, err="Traceback (most recent call last):")]))
    assert broken(replace(case, state="not in step: 1 to mirror")) == {9}
    assert broken(replace(case, complaints=["40,000,000 bytes"])) == {10}


def test_no_fault_that_ends_a_follow_in_good_order_is_drawn() -> None:
    """It could not be in step after them."""
    site: Any = SimpleNamespace(name="valkey-9.1")
    names = {fault.name for fault in possible_in_a_follow(site)}
    assert {"FLUSHALL", "kill -9 of luamigrate", "SIGSTOP of luamigrate", "two follows at once"} <= names
    assert not {"Ctrl-C", "SIGHUP", "closed output"} & names
