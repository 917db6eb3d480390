"""Whole key spaces, drawn by Hypothesis, against a plain model of what a run must say and leave."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luamigrate import Summary, connect, migrate, plan
from tests.instances import Instance, Snapshot, assert_kept, assert_same_expiry, snapshot

RULES = plan([("h:*", "H:*", "hash"), ("s:*:x", "S:*:y", "set"), ("z:*", "Z:*", "zset"), ("alone", "Alone", "hash")])
SOURCES = ((b"h:", b""), (b"s:", b":x"), (b"z:", b""))
TARGETS = {b"h:": b"H:", b"s:": b"S:", b"z:": b"Z:"}
KINDS = {b"h:": "hash", b"s:": "set", b"z:": "zset"}

LONG = b"long" * 30  # turns a compact hash or set into a table
words = st.sampled_from([b"", b"1", b"01", b"a", b"\x00\xff", LONG])
scores = st.sampled_from([0.0, 1.0, 0.1 + 0.2, 0.3, 1e300, float("inf"), -17.5])
OF_KIND: dict[str, st.SearchStrategy[tuple[str, Any]]] = {
    "hash": st.tuples(st.just("hash"), st.dictionaries(words, words, min_size=1)),
    "set": st.tuples(st.just("set"), st.sets(words, min_size=1)),
    "zset": st.tuples(st.just("zset"), st.dictionaries(words, scores, min_size=1)),
    "string": st.tuples(st.just("string"), words),
    "list": st.tuples(st.just("list"), st.lists(words, min_size=1, max_size=3)),
}
values = st.one_of(*OF_KIND.values())
expiries = st.sampled_from([None, None, 1_000_000, 1_000_300, 2_000_000])
Key = tuple[tuple[str, Any], int | None]


@st.composite
def related_targets(draw: st.DrawFn, source: Key) -> Key | None:
    """Draw a target in each relation to its source: none, equal, a part, more, or anything."""
    (kind, content), expiry = source
    how = draw(st.sampled_from(["none", "equal", "part", "more", "any"]))
    if how == "none":
        return None
    if how == "any" or kind in ("string", "list"):
        return draw(values), draw(expiries)
    if how == "part":
        kept = draw(st.sets(st.sampled_from(sorted(content)), min_size=1))
        content = kept if kind == "set" else {name: content[name] for name in kept}
    if how == "more":
        content = content | {b"more"} if kind == "set" else {**content, b"more": b"1" if kind == "hash" else 1.0}
    return (kind, content), draw(st.sampled_from([expiry, expiry, None]))


@st.composite
def key_spaces(draw: st.DrawFn) -> dict[bytes, Key]:
    """Draw sources, targets in every relation to them, and keys that no rule concerns."""
    keys: dict[bytes, Key] = {}
    for number, middle in enumerate(draw(st.lists(st.binary(max_size=4), max_size=12, unique=True))):
        prefix, suffix = SOURCES[number % 3]
        content = draw(st.one_of(OF_KIND[KINDS[prefix]], OF_KIND[KINDS[prefix]], values))
        source = content, draw(expiries)
        keys[prefix + middle + suffix] = source
        target = draw(related_targets(source))
        if target:
            keys[target_of(prefix + middle + suffix)] = target
    for name in draw(st.sets(st.sampled_from([b"h", b"s:x", b"H:other", b"alone", b"Alone", b"unrelated"]))):
        keys[name] = draw(values), draw(expiries)
    return keys


def target_of(source: bytes) -> bytes:
    """Return the target name of a source, without asking the rules."""
    if source == b"alone":
        return b"Alone"
    target = TARGETS[source[:2]] + source[2:]
    return target[:-2] + b":y" if source.startswith(b"s:") else target


def sources_in(keys: dict[bytes, Key]) -> dict[bytes, str]:
    """Return the keys that a rule's pattern matches, with the type the rule wants."""
    found = {name: "hash" for name in keys if name.startswith(b"h:") or name == b"alone"}
    found |= {name: "zset" for name in keys if name.startswith(b"z:")}
    return found | {name: "set" for name in keys if name.startswith(b"s:") and name.endswith(b":x") and len(name) >= 4}


def expected_word(wanted: str, source: Key, target: Key | None, ignore_expiry: bool) -> str:
    """Say what one pair must be called."""
    (kind, content), expiry = source
    if kind != wanted:
        return "ignored"
    if target is None:
        return "copied"
    (target_kind, found), target_expiry = target
    if target_kind != kind:
        return "differs"
    if found == content:
        near = expiry == target_expiry or (expiry and target_expiry and abs(expiry - target_expiry) <= 1000)
        return "same" if near or ignore_expiry else "expiry"
    part = found < content if kind == "set" else set(found.items()) < set(content.items())
    return "partial" if part else "differs"


def write(client: redis.Redis, keys: dict[bytes, Key], now: int) -> None:
    """Write a key space by ordinary commands; expiries count from `now`, in milliseconds."""
    for name, ((kind, content), expiry) in keys.items():
        match kind:
            case "hash":
                client.hset(name, mapping=content)
            case "set":
                client.sadd(name, *content)
            case "zset":
                client.zadd(name, content)
            case "string":
                client.set(name, content)
            case "list":
                client.rpush(name, *content)
        if expiry:
            client.pexpireat(name, now + expiry)


def counted(server: Instance, **options: Any) -> Counter[str]:
    """Run and return how often each word came up."""
    summary = Summary(RULES)
    with connect(server.url) as connection:
        for batch in migrate(connection, RULES, batch_size=3, settle=0, **options):
            summary.add(batch)
    counts = Counter({word.value: count for word, count in summary.totals.counts.items()})
    assert summary.totals.found == counts.total()
    return counts + Counter(ignored=summary.totals.ignored.total())


def assert_state(server: Instance, before: Snapshot, copied: dict[bytes, bytes]) -> None:
    """Everything is as it was, each copied target equals its source, and nothing else is there."""
    after = snapshot(server.client)
    assert_kept(before, after)
    assert after.keys() - before.keys() == set(copied)
    for target, source in copied.items():
        assert after[target][0] == after[source][0]
        assert_same_expiry(after[target][1], after[source][1], target)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(keys=key_spaces(), ignore_expiry=st.booleans())
def test_words_and_state_are_those_of_the_model(server: Instance, keys: dict[bytes, Key], ignore_expiry: bool) -> None:
    """A dry run, a run and another one, for whatever there is."""
    server.client.flushall()
    write(server.client, keys, int(time.time() * 1000))
    before = snapshot(server.client)
    words_of = {
        name: expected_word(wanted, keys[name], keys.get(target_of(name)), ignore_expiry)
        for name, wanted in sources_in(keys).items()
    }
    copied = {target_of(name): name for name, word in words_of.items() if word == "copied"}
    expected = Counter(words_of.values())

    dry = counted(server, dry_run=True, ignore_expiry=ignore_expiry)
    assert dry == Counter({"missing" if word == "copied" else word: count for word, count in expected.items()})
    assert_state(server, before, {})

    assert counted(server, ignore_expiry=ignore_expiry) == expected
    assert_state(server, before, copied)

    again = expected + Counter(same=expected["copied"])
    del again["copied"]
    assert counted(server, ignore_expiry=ignore_expiry) == again
    assert_state(server, before, copied)
