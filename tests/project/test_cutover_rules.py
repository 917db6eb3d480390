"""The judge of a cut-over in the campaign: a sound one passes, and what is spoilt breaks its rule."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from chaos import gate
from chaos.counted import DOUBLED, LOST
from chaos.counting import Report
from chaos.cutover_course import RECORDS, State
from chaos.cutover_faults import Trigger, possible
from chaos.cutover_rules import RULES, STRAGGLED, STRAGGLER, Case, Leg, judge
from chaos.cutovers import HEAD, Totals
from chaos.processes import Ended
from chaos.worlds import Stored
from tests.instances import Instance

pytestmark = pytest.mark.single_server("it is the judge that is judged")

RECORD = {RECORDS.replace(b"*", b"x"): {b"flag": b"flag", b"value": b"new"}}
FLIPPED, NOT_FLIPPED, FINISHED = State(b"new", RECORD), State(None, {}), State(b"new", {})
THERE = {"side": "targets", "done": True, "attempts": 1, "freeze_ms": 12.0}
BACK = THERE | {"side": "sources"}
END = Ended((), 0, '{"followed": {"was_in_step": true, "stragglers": 0}}', "", {}, 0.0, 1.0)
KEYS = {name: Stored("hash", {b"n": b"5"}) for name in (b"job:1", b"step:1")}
STRAGGLING = {STRAGGLER.encode(): Stored("hash", {STRAGGLED.encode(): b"1"})}
SOUND = Case(
    legs=[
        Leg("cutover", "nothing", THERE, FLIPPED, (THERE,), kills=False, cuts=False),
        Leg("back", "kill -9 at a packet", BACK, NOT_FLIPPED, (None, BACK), kills=True, cuts=False),
        Leg("cutover", "nothing", THERE, FLIPPED, (THERE,), kills=False, cuts=False),
    ],
    report=Report(Counter({"counter:1": 5})),
    counters=Counter({"counter:1": 5}),
    found=KEYS | {b"luamigrate:cutover:x": Stored("hash", {b"value": b"new"})},
    left=KEYS | {b"flag": Stored("string", b"new"), b"luamigrate:followed:x": Stored("string", b"")},
    state=FINISHED,
    former=None,
    finished=True,
    ends=[replace(END, code=-9, out=""), END],
    stragglers=set(),
    hooks=["cutover", "flip"] * 3,
    kill="all",
    freeze_ms=500.0,
    straggled=False,
    loses=False,
)
TO_AND_FRO = replace(SOUND, legs=SOUND.legs[:2], state=NOT_FLIPPED, finished=False)


def broken(**spoilt: Any) -> set[int]:
    """Return the numbers of the rules that are broken once this is so."""
    return {number for number, _ in judge(replace(SOUND, **spoilt))}


def leg(**spoilt: Any) -> list[Leg]:
    """Return the ways there and back, the first of them spoilt."""
    return [replace(SOUND.legs[0], **spoilt), *SOUND.legs[1:]]


def test_a_sound_cutover_breaks_no_rule() -> None:
    """There and back, and there once more; and only to and fro."""
    assert judge(SOUND) == []
    assert judge(TO_AND_FRO) == []


def test_counts_are_judged_unless_a_server_may_have_lost_what_it_had_acknowledged() -> None:
    """Where an excuse holds, the rest is judged all the same."""
    fewer, more = Counter({"counter:1": 4}), Counter({"counter:1": 6})
    assert broken(counters=fewer) == {LOST}
    assert broken(counters=more) == {DOUBLED}
    assert broken(counters=fewer, loses=True) == set()
    unkilled = [replace(each, kills=False) for each in SOUND.legs]
    assert broken(counters=fewer, kill="none", stragglers={"job:1"}, legs=unkilled) == set()
    assert broken(counters=fewer, kill="none", legs=unkilled) == {LOST}
    assert broken(counters=fewer, kill="none") == set()
    assert broken(counters=fewer, stragglers={"job:1"}, legs=unkilled) == {LOST, 9}


def test_sides_flag_and_record_that_disagree_are_caught() -> None:
    """After each word, and at the end."""
    assert broken(legs=leg(state=NOT_FLIPPED)) == {3}
    assert broken(legs=leg(state=State(b"new", {}))) == {3}
    assert broken(legs=leg(state=State(None, RECORD))) == {3}
    assert broken(legs=leg(state=State(b"new", {b"x": {b"value": b"other"}}))) == {3}
    assert broken(legs=leg(told=BACK)) == {3}
    assert broken(former=b"old") == {3}
    assert broken(state=FLIPPED) == {3}
    assert broken(state=NOT_FLIPPED) == {3}
    assert {number for number, _ in judge(replace(TO_AND_FRO, state=FINISHED))} == {3}


def test_pairs_that_differ_are_caught() -> None:
    """Also where one of them is not there; not where it was named as a straggler."""
    unequal = SOUND.found | {b"step:1": Stored("hash", {b"n": b"4"})}
    assert broken(found=unequal) == {4}
    assert broken(found={name: each for name, each in SOUND.found.items() if name != b"job:1"}) == {4, 5}
    assert broken(found=unequal, kill="none", stragglers={"job:1"}) == set()


def test_what_is_left_behind_is_caught() -> None:
    """Records, indexes, leases, and keys of no plan."""
    for name in (b"luamigrate:cutover", b"luamigrate:cutover:x", b"luamigrate:follow:x", b"step:2"):
        assert broken(left=SOUND.left | {name: Stored("string", b"")}) == {5}


def test_untrue_answers_and_codes_are_caught() -> None:
    """And hooks of which nobody was told."""
    assert broken(legs=leg(answers=({"side": "targets"},))) == {6}
    assert broken(legs=leg(answers=({"error": "no"}, THERE))) == {6}
    assert broken(legs=leg(answers=({"error": "no"}, THERE), fault="CLIENT PAUSE by others")) == set()
    assert broken(hooks=["cutover", "flip"]) == {6}
    assert broken(ends=[replace(END, code=3)]) == {6}
    assert broken(ends=[replace(END, out="")]) == {6}
    assert broken(ends=[replace(END, err="Traceback (most recent call last):")]) == {7}
    assert broken(legs=leg(told=THERE | {"freeze_ms": 600.0})) == {8}


def test_a_straggler_that_is_not_named_or_kept_is_caught() -> None:
    """And one that cannot be."""
    left = SOUND.left | STRAGGLING
    named = {STRAGGLER}
    told = [replace(END, code=3, out=END.out.replace('"stragglers": 0', '"stragglers": 1'))]
    found = SOUND.found | STRAGGLING
    assert broken(straggled=True, left=left, found=found, stragglers=named, ends=told) == set()
    assert broken(straggled=True, left=left, found=found, ends=told) == {9}
    assert broken(straggled=True, stragglers=named, ends=told) == {9}
    assert broken(straggled=True, left=left, found=found, stragglers=named) == {9}
    unkilled = [replace(each, kills=False) for each in SOUND.legs]
    assert broken(stragglers={"job:2"}, legs=unkilled) == {9}


def test_a_trigger_acts_at_one_packet_of_a_freeze() -> None:
    """And counts none before the first."""
    acted: list[int] = []
    trigger = Trigger(2, lambda: acted.append(1))
    for content in (b"PING", b"CLIENT PAUSE 5", b"PING", b"PING"):
        trigger(content)
    assert (trigger.seen, trigger.has_struck, acted) == (3, True, [1])


def test_what_passes_a_gate_arrives_whole_and_may_be_watched_or_cut(any_server: Instance) -> None:
    """In one piece or in many."""
    seen: list[bytes] = []
    with ExitStack() as stack:
        before = stack.enter_context(gate.before(lambda: any_server.url.removeprefix("unix://")))
        direct = stack.enter_context(any_server.another_client())
        client = stack.enter_context(redis.Redis.from_url(before.url, protocol=2, retry=Retry(NoBackoff(), 0)))
        before.splits, before.watch = 1.0, seen.append
        assert client.set("a", value := b"PAUSE" * 100)
        assert direct.get("a") == value
        assert value in b"".join(seen)
        before.watch = cut
        with pytest.raises(redis.ConnectionError):
            client.set("a", "y")
        assert direct.get("a") == value


def cut(_: bytes) -> None:
    """Let nothing pass."""
    raise ConnectionAbortedError


def test_faults_are_drawn_where_they_can_strike() -> None:
    """Packets cannot be watched behind a Sentinel, and nothing fails over without one."""
    site: Any = SimpleNamespace(site=None, gate=None)
    assert {"kill -9 at a moment", "SIGTERM"} <= {fault.name for fault in possible(site)}
    assert not {"kill -9 at a packet", "SENTINEL FAILOVER"} & {fault.name for fault in possible(site)}


def test_a_row_has_a_cell_for_each_heading() -> None:
    """Also where nothing was tried."""
    assert len(Totals().row()) == len(HEAD)
    assert len(HEAD) > len(RULES)
