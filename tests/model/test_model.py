"""Whole key spaces, drawn by Hypothesis, against a plain model of what each command must say and leave."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luamigrate import Batch, Command, Limits, Plan, Summary, connect, migrate, plan, rollback, verify
from luamigrate.server.deployment import Deployment
from tests.instances import Instance, assert_same_expiry, snapshot

TRIPLES = [
    ("h:*", "H:*", "hash"),
    ("s:*:x", "S:*:y", "set"),
    ("z:*", "Z:*", "zset"),
    ("c:*", "C:*", "string"),
    ("l:*", "L:*", "list"),
    ("e:*", "E:*", "stream"),
    ("a:!*", "N:*", "any"),
    ("a:*", "A:*", "any"),
    ("p:<x>:<y>", "P:<y>:<x>", "any"),
    ("alone", "Alone", "hash"),
]
ELSEWHERE = 3
"""The database of the targets, where they are not in that of the sources."""
RULES = {
    database: plan(TRIPLES, excepts=["p:-*", "c:-"], first_match=True, database=database)
    for database in (None, ELSEWHERE)
}
KINDS = {b"h:": "hash", b"s:": "set", b"z:": "zset", b"c:": "string", b"l:": "list", b"e:": "stream"}
KINDS |= {b"a:": "any", b"p:": "any"}
middles = st.one_of(
    st.binary(max_size=4), st.lists(st.sampled_from([b"x", b":", b"!", b"-", b"\xff"]), max_size=6).map(b"".join)
)

LONG = b"long" * 30  # turns a compact hash or set into a table
words = st.sampled_from([b"", b"1", b"01", b"a", b"\x00\xff", LONG])
scores = st.sampled_from([0.0, 1.0, 0.1 + 0.2, 0.3, 1e300, float("inf"), -17.5])
OF_KIND: dict[str, st.SearchStrategy[tuple[str, Any]]] = {
    "hash": st.tuples(st.just("hash"), st.dictionaries(words, words, min_size=1)),
    "set": st.tuples(st.just("set"), st.sets(words, min_size=1)),
    "zset": st.tuples(st.just("zset"), st.dictionaries(words, scores, min_size=1)),
    "string": st.tuples(st.just("string"), words),
    "list": st.tuples(st.just("list"), st.lists(words, min_size=1, max_size=3)),
    "stream": st.tuples(st.just("stream"), st.lists(words, min_size=1, max_size=3)),
}
values = st.one_of(*OF_KIND.values())
expiries = st.sampled_from([None, None, 1_000_000, 1_000_300, 2_000_000])
Key = tuple[tuple[str, Any], int | None]
Keys = dict[bytes, Key]


@st.composite
def related_targets(draw: st.DrawFn, source: Key) -> Key | None:
    """Draw a target in each relation to its source: none, equal, a subset, more, or anything."""
    (kind, content), expiry = source
    how = draw(st.sampled_from(["none", "equal", "subset", "more", "any"]))
    if how == "none":
        return None
    if how == "any" or (kind not in ("hash", "set", "zset") and how != "equal"):
        return draw(values), draw(expiries)
    if how == "subset":
        kept = draw(st.sets(st.sampled_from(sorted(content)), min_size=1))
        content = kept if kind == "set" else {name: content[name] for name in kept}
    if how == "more":
        content = content | {b"more"} if kind == "set" else {**content, b"more": b"1" if kind == "hash" else 1.0}
    return (kind, content), draw(st.sampled_from([expiry, expiry, None]))


@st.composite
def key_spaces(draw: st.DrawFn) -> Keys:
    """Draw sources, targets in every relation to them, and keys that no rule concerns."""
    keys: Keys = {}
    for middle in draw(st.lists(middles, max_size=12, unique=True)):
        prefix = draw(st.sampled_from(sorted(KINDS)))
        name = prefix + middle + (b":x" if prefix == b"s:" else b"")
        right = OF_KIND.get(KINDS[prefix], values)
        keys[name] = draw(st.one_of(right, right, values)), draw(expiries)
        target = draw(related_targets(keys[name]))
        if target and (prefix != b"p:" or cut(middle)):
            keys[target_of(name)] = target
    for name in draw(st.sets(st.sampled_from([b"h", b"s:x", b"H:other", b"A:other", b"alone", b"Alone", b"other"]))):
        keys[name] = draw(values), draw(expiries)
    return keys


def cut(name: bytes) -> tuple[bytes, bytes] | None:
    """Cut what stands behind `p:` or `P:` where its first part is as short as it can be; no part is empty."""
    place = name.find(b":", 1)
    return (name[:place], name[place + 1 :]) if 0 < place < len(name) - 1 else None


def exchanged(name: bytes) -> bytes:
    """Return a name with its two parts in the other order; without two parts, one that is no key."""
    parts = cut(name)
    return parts[1] + b":" + parts[0] if parts else b""


def target_of(source: bytes) -> bytes:
    """Return the target name of a source, without asking the rules."""
    if source == b"alone":
        return b"Alone"
    if source.startswith(b"p:"):
        return b"P:" + exchanged(source[2:])
    if source.startswith(b"a:!"):
        return b"N:" + source[3:]
    target = source[:1].upper() + source[1:]
    return target[:-2] + b":y" if source.startswith(b"s:") else target


def source_of(target: bytes) -> bytes:
    """Return the source name of a target."""
    if target.startswith(b"P:"):
        return b"p:" + exchanged(target[2:])
    if target.startswith(b"N:"):
        return b"a:!" + target[2:]
    source = target[:1].lower() + target[1:]
    return source[:-2] + b":x" if target.startswith(b"S:") else source


def wanted_type(source: bytes) -> str | None:
    """Return the type that the rule for this source wants; None where there is no rule."""
    if source == b"alone":
        return "hash"
    if source.startswith(b"s:") and not (source.endswith(b":x") and len(source) >= 4):
        return None
    if source == b"c:-" or source.startswith(b"p:-") or (source.startswith(b"p:") and not cut(source[2:])):
        return None
    return KINDS.get(source[:2])


class Model:
    """What is there, and what the commands must say of it and make of it."""

    def __init__(self, keys: Keys, *, ignore_expiry: bool) -> None:
        self.keys = dict(keys)
        self.ignore_expiry = ignore_expiry

    def stand(self, source: bytes, *, ignore_expiry: bool) -> str:
        """Compare a source with its target."""
        (kind, content), expiry = self.keys[source]
        if source_of(target_of(source)) != source and source != b"alone":
            return "failed"
        if wanted_type(source) not in (kind, "any"):
            return "ignored"
        if target_of(source) not in self.keys:
            return "missing"
        (target_kind, found), target_expiry = self.keys[target_of(source)]
        if target_kind != kind:
            return "differs"
        if found == content:
            return "same" if ignore_expiry or near(expiry, target_expiry) else "expiry"
        if kind not in ("hash", "set", "zset"):
            return "differs"
        is_subset = found < content if kind == "set" else set(found.items()) < set(content.items())
        return "partial" if is_subset else "differs"

    @property
    def sources(self) -> list[bytes]:
        """The keys that a rule's pattern matches."""
        return [name for name in self.keys if wanted_type(name)]

    def compared(self) -> Counter[str]:
        """Return the words of a dry run, or of verify."""
        return Counter(self.stand(name, ignore_expiry=self.ignore_expiry) for name in self.sources)

    def extra(self) -> int:
        """Count targets of a rule's type that have no source of that type."""
        names = [name for name in self.keys if wanted_type(source_of(name)) and source_of(name) != name]
        names = [name for name in names if target_of(source_of(name)) == name]
        fit = [name for name in names if wanted_type(source_of(name)) in (self.keys[name][0][0], "any")]
        return sum(not self.is_source(source_of(name)) for name in fit)

    def is_source(self, name: bytes) -> bool:
        """Tell whether a key is there and of its rule's type."""
        return name in self.keys and wanted_type(name) in (self.keys[name][0][0], "any")

    def run(self, filling: str) -> Counter[str]:
        """Copy and fill; return the words."""
        counts: Counter[str] = Counter()
        for name in self.sources:
            word = self.stand(name, ignore_expiry=self.ignore_expiry)
            if word == "missing":
                self.keys[target_of(name)] = self.keys[name]
                word = "copied"
            elif word == "partial" and self.may_fill(name, filling):
                self.keys[target_of(name)] = self.keys[name][0], self.keys[target_of(name)][1]
                word = "filled"
            counts[word] += 1
        return counts

    def may_fill(self, source: bytes, filling: str) -> bool:
        """Tell whether a partial target is to be filled."""
        (kind, _), expiry = self.keys[source]
        fits = self.ignore_expiry or near(expiry, self.keys[target_of(source)][1])
        return fits and (filling == "queues" or (filling == "sets" and kind != "zset"))

    def rollback(self) -> Counter[str]:
        """Remove what equals its source; return the words."""
        counts: Counter[str] = Counter()
        for name in self.sources:
            word = self.stand(name, ignore_expiry=True)
            if word == "same" and lasts(self.keys[name][1], self.keys[target_of(name)][1]):
                del self.keys[target_of(name)]
                word = "removed"
            counts["kept" if word in ("same", "partial", "differs") else word] += 1
        return counts


def near(expiry: int | None, other: int | None) -> bool:
    """Tell whether two expiries are the same, as promised."""
    return expiry == other or bool(expiry and other and abs(expiry - other) <= 1000)


def lasts(expiry: int | None, other: int | None) -> bool:
    """Tell whether what expires at the one moment is there at least until the other."""
    return expiry is None or (other is not None and expiry >= other)


def write(client: redis.Redis, keys: Keys, now: int) -> None:
    """Write a key space by ordinary commands; expiries count from `now`, in milliseconds."""
    pipeline = client.pipeline(transaction=False)
    for name, ((kind, content), expiry) in keys.items():
        match kind:
            case "hash":
                pipeline.hset(name, mapping=content)
            case "set":
                pipeline.sadd(name, *content)
            case "zset":
                pipeline.zadd(name, content)
            case "string":
                pipeline.set(name, content)
            case "list":
                pipeline.rpush(name, *content)
            case "stream":
                for number, value in enumerate(content, 1):
                    pipeline.xadd(name, {"field": value}, id=f"{number}-1")
        if expiry:
            pipeline.pexpireat(name, now + expiry)
    pipeline.execute()


def count(
    connection: Deployment,
    rules: Plan,
    limits: Limits,
    work: Callable[..., Iterator[Batch]],
    command: Command,
) -> Counter[str]:
    """Do the work and return how often each word came up."""
    summary = Summary(rules, command)
    for batch in work(connection, rules, limits=limits, settle=0):
        summary.add(batch)
    totals = summary.totals
    counts = Counter({word.value: count for word, count in totals.counts.items()})
    assert totals.found == counts.total() - counts["extra"]
    assert totals.waiting == 0
    return counts + Counter(ignored=totals.ignored.total())


def is_target(name: bytes) -> bool:
    """Tell whether a key lies where the targets are."""
    return name[:1].isupper()


def assert_state(here: redis.Redis, there: redis.Redis, model: Model, now: int) -> None:
    """Assert that the server has exactly the keys of the model, each in its database."""
    found = snapshot(here)
    if there is not here:
        assert not any(map(is_target, found))
        targets = snapshot(there)
        assert all(map(is_target, targets))
        found |= targets
    assert found.keys() == model.keys.keys()
    for name, ((kind, content), expiry) in model.keys.items():
        (found_kind, value), found_expiry = found[name]
        assert found_kind == kind
        if kind == "stream":
            entries: Any = (there if is_target(name) else here).xrange(name)
            value = [fields[b"field"] for _, fields in entries]
        elif kind == "zset":
            value = {member: float(score) for member, score in value.items()}
        assert value == content
        assert_same_expiry(found_expiry, now + expiry if expiry else None, name)


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    keys=key_spaces(),
    ignore_expiry=st.booleans(),
    filling=st.sampled_from(["", "sets", "queues"]),
    database=st.sampled_from([None, None, ELSEWHERE]),
    size=st.sampled_from([3, 100]),
)
def test_words_and_state_are_those_of_the_model(
    server: Instance, keys: Keys, ignore_expiry: bool, filling: str, database: int | None, size: int
) -> None:
    """A dry run, verify, a run, the same again, verify and rollback, for whatever there is, in one database or two."""
    server.client.flushall()
    rules = RULES[database if server.mode == "standalone" else None]
    here = server.client
    elsewhere = server.another_client(db=ELSEWHERE) if rules[0].database else nullcontext(here)
    now = int(time.time() * 1000)
    write(here, {name: key for name, key in keys.items() if not is_target(name)}, now)
    model = Model(keys, ignore_expiry=ignore_expiry)
    options: Any = {"on_existing": "fill" if filling else "skip", "fill_queues": filling == "queues"}
    run = partial(migrate, ignore_expiry=ignore_expiry, **options)
    compare = partial(verify, ignore_expiry=ignore_expiry, extra=True)
    with elsewhere as there, connect(server.url) as connection:
        write(there, {name: key for name, key in keys.items() if is_target(name)}, now)
        counted = partial(count, connection, rules, Limits(batch_size=size))
        assert counted(partial(run, dry_run=True), Command.RUN) == model.compared()
        assert counted(compare, Command.VERIFY) == model.compared() + Counter(extra=model.extra())
        assert_state(here, there, model, now)
        for _ in range(2):
            assert counted(run, Command.RUN) == model.run(filling)
            assert_state(here, there, model, now)
        assert counted(compare, Command.VERIFY) == model.compared() + Counter(extra=model.extra())
        assert_state(here, there, model, now)
        assert counted(rollback, Command.ROLLBACK) == model.rollback()
        assert_state(here, there, model, now)
