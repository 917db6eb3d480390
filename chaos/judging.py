"""The rules that are true after every trial: the first eight after one with runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import redis

from chaos.application import Application, Reader
from chaos.faults import Fault
from chaos.processes import Ended
from chaos.sites import Site
from chaos.worlds import Keys, Stored, World, expires_meanwhile, lives_as_long, relation
from luamigrate.model.errors import printable
from luamigrate.model.rules import RESERVED

RULES = {
    1: "no source changed",
    2: "no target that was there lost or changed anything",
    3: "every source has an equal target, or a true word",
    4: "no reader saw a half-made target",
    5: "nothing left behind",
    6: "sums, claims and exit codes true",
    7: "no script too long",
    8: "no traceback, no hang",
    9: "in step means equal, and it comes into step",
    10: "the server keeps little for who does not read",
}
PAUSES = 7
STAGING_MS = 60_000
NOISE_MS = 60.0
"""That a busy machine may add to a script at least; else as much as it delayed the reader."""
ONE_KEY_MS = 15.0
"""The largest key that a trial has, taken whole by a slow server."""
TELLS = 3
TOO_BIG = "failed too-big"
CANNOT_GO_IN_CHUNKS = ("stream", "string")

Violation = tuple[int, str]
"""The rule, and what was found."""


@dataclass(frozen=True)
class Case:
    """What happened, and what there is now."""

    site: Site
    world: World
    application: Application
    reader: Reader
    faults: list[Fault]
    last_loss: float
    """When the last fault ended that may lose what was acknowledged; 0 for none."""
    runs: list[Ended]
    """All runs in turn; the last one beside nobody and without faults."""
    fills: str
    """'' for nothing, 'sets', or 'queues' for sorted sets too."""
    validates: bool
    ignores_expiry: bool
    max_pause: float
    found: Keys

    @property
    def final(self) -> Ended:
        """The last run."""
        return self.runs[-1]

    def word_of(self, source: bytes) -> str:
        """Return what the last run has said of a source."""
        return self.final.report.get(printable(source), "clean")

    @property
    def was_cut_off(self) -> bool:
        """Whether a run ended between any two of its steps."""
        return any(fault.kills or fault.loses for fault in self.faults) or any(run.code is None for run in self.runs)

    @property
    def pairs(self) -> Iterator[tuple[bytes, Stored, bytes]]:
        """Sources that are there, and the names of their targets."""
        for source, stored in self.found.items():
            target = self.world.target_of(source)
            if target is not None:
                yield source, stored, target


def judge_verify(case: Case, verified: Ended) -> list[Violation]:
    """Return what a comparison afterwards should not have said."""
    told = replace(case, runs=[verified], validates=True)
    return [(3, text) for text in _untrue(told)] + [(6, text) for text in _sums(verified)]


def judge(case: Case) -> list[Violation]:
    """Return what breaks a rule."""
    rules = (_sources, _targets, _words, _readers, _left_behind, _claims, _pauses, _screens)
    return [
        (number, text) for number, rule in enumerate(rules, 1) for count, text in enumerate(rule(case)) if count < TELLS
    ]


def _sources(case: Case) -> Iterator[str]:
    expected = case.application.sources | case.world.bystanders
    for name, stored in expected.items():
        there = case.found.get(name)
        if expires_meanwhile(stored):
            if there:
                yield f"{name!r} should have expired"
        elif there is None:
            yield f"{name!r} is lost"
        elif there.content != stored.content:
            yield f"{name!r} is not what the application left"
        elif not lives_as_long(there, stored):
            yield f"{name!r} expires at {there.at}, not {stored.at}"
    targets = {case.world.target_of(name) for name in case.world.sources}
    for name in case.found.keys() - expected.keys() - targets:
        if not name.startswith(RESERVED):
            yield f"{name!r} has come from nowhere"


def _targets(case: Case) -> Iterator[str]:
    source_of = {case.world.target_of(name): name for name in case.world.sources}
    for name, stored in case.application.targets.items():
        there, source = case.found.get(name), case.application.sources.get(source_of[name])
        if there is None:
            yield f"{name!r} is lost"
        elif not _kept(there, stored, source if case.fills else None):
            yield f"{name!r} is not what was there before"
        elif not lives_as_long(Stored("", "", there.at), Stored("", "", stored.at)):
            yield f"{name!r} expires at {there.at}, not {stored.at}"


def _kept(there: Stored, before: Stored, source: Stored | None) -> bool:
    if there.kind != before.kind or there.content == before.content:
        return there.kind == before.kind
    if source is None or source.kind != there.kind or there.kind not in ("hash", "set", "zset"):
        return False
    return bool(before.elements <= there.elements <= (before.elements | source.elements))


def _words(case: Case) -> Iterator[str]:
    yield from _untrue(case)
    for source, stored, target in case.pairs:
        stand = relation(stored, case.found.get(target), ignore_expiry=case.ignores_expiry)
        if stand != "same" and case.word_of(source) != TOO_BIG and _should_be_same(case, source, target):
            yield f"{source!r} is {stand}, with nobody to blame"
    yield from _orphans(case)


def _untrue(case: Case) -> Iterator[str]:
    """Compute the relation of each pair again, and compare it with the word that was said."""
    for source, stored, target in case.pairs:
        word = case.word_of(source)
        stand = relation(stored, case.found.get(target), ignore_expiry=case.ignores_expiry)
        if word == TOO_BIG and stored.kind in CANNOT_GO_IN_CHUNKS:
            continue
        if word == "clean" and (stand == "same" or not (case.validates or stand == "missing")):
            continue
        if word != stand:
            yield f"{source!r} is said to be {word} and is {stand}"


def _should_be_same(case: Case, source: bytes, target: bytes) -> bool:
    if target in case.world.targets:
        return False
    if source not in case.application.touched:
        return True
    return case.site.is_one and case.application.when == "there"


def _orphans(case: Case) -> Iterator[str]:
    """Look for copies of what is not there any more: an application that writes to both deletes both."""
    if case.application.when == "any" or (case.was_cut_off and not case.site.is_one):
        return
    for source in case.world.sources.keys() - case.found.keys():
        target = case.world.target_of(source)
        if target in case.found and target not in case.world.targets:
            yield f"{target!r} is there without its source"


def _readers(case: Case) -> Iterator[str]:
    yield from case.reader.seen


def _left_behind(case: Case) -> Iterator[str]:
    for server in case.site.servers():
        client: Any = server.client
        for name in client.scan_iter(RESERVED + b"*"):
            left = client.pttl(name)
            # Whoever has lost the server, or is to end while it is lost, cannot clear up any more.
            ended_early = case.was_cut_off or any(run.code not in (0, 3) for run in case.runs)
            if not (ended_early and 0 < left <= STAGING_MS):
                yield f"{name!r} is left, for {left} ms"
        if client.info("clients")["blocked_clients"]:
            yield "a client is blocked"
        with suppress(redis.ResponseError):
            if client.execute_command("FUNCTION", "LIST"):
                yield "a function is loaded"


def _claims(case: Case) -> Iterator[str]:
    for run in case.runs:
        yield from _sums(run)
    document = case.final.document
    if not document:
        yield f"no document: {case.final}"
        return
    too_big = any(word == TOO_BIG for word in case.final.report.values())
    if document["error"] or case.final.code not in ((1,) if too_big else (0, 3)):
        yield f"nothing hindered it, and yet: {case.final}"
    present = Counter(
        "same" if case.word_of(source) == "clean" else "other"
        for source, stored, _ in case.pairs
        if not expires_meanwhile(stored)
    )
    clean = sum(document["totals"].get(word, 0) for word in ("same", "exists", "copied", "filled"))
    if clean != present["same"]:
        yield f"{clean} clean keys counted, {present['same']} there"
    there = sum(1 for _ in case.pairs)
    found = document["totals"]["found"] - document["totals"].get("gone", 0)
    if found != there:
        yield f"{found} keys found, {there} there"
    reported = Counter(word.split()[0] for word in case.final.report.values())
    for word in ("expiry", "partial", "differs", "missing", "failed"):
        counted = document["totals"].get(word, 0)
        if counted != reported[word]:
            yield f"{counted} {word} counted, {reported[word]} reported"
    yield from _taken_back(case)


def _sums(run: Ended) -> Iterator[str]:
    document = run.document
    if not document:
        return
    totals = dict(document["totals"])
    words = {name: count for name, count in totals.items() if name not in ("found", "ignored", "fillable", "extra")}
    if totals["found"] != sum(words.values()):
        yield f"found is not the sum of the words: {totals}"
    for rule in document["rules"]:
        total = sum(count for name, count in rule.items() if name in words)
        if rule["found"] != total:
            yield f"found is not the sum of the words of a rule: {rule}"
    if run.code is not None and run.code >= 0 and run.code != document["exit_code"]:
        yield f"exit code {run.code}, in the document {document['exit_code']}"
    wanted = _exit_code(document, words)
    if document["exit_code"] not in wanted:
        yield f"exit code {document['exit_code']}, not {wanted}: {totals}, {document['error']}"


def _exit_code(document: Any, words: dict[str, int]) -> set[int]:
    if document["interrupted"]:
        return {130}
    if words.get("failed"):
        return {1}
    if document["error"]:
        return {1, 4}
    unfinished = sum(words.get(word, 0) for word in ("expiry", "partial", "differs", "kept", "missing"))
    return {3} if unfinished or not document["totals"]["found"] else {0}


def _taken_back(case: Case) -> Iterator[str]:
    """See that what a run has told to be there was there for the next one, where servers keep what they have."""
    if case.application.when == "any":
        return
    for number, run in enumerate(case.runs[:-1]):
        document = run.document
        if not document or document["exit_code"] not in (0, 3) or run.ended < case.last_loss:
            continue
        copied = sum(
            later.document["totals"].get("copied", 0)
            for later in case.runs[number + 1 :]
            if later.document and later.began > run.ended
        )
        if copied:
            yield f"exit code {run.code}, and yet {copied} keys were left to copy"


def _pauses(case: Case) -> Iterator[str]:
    if any(fault.blocks for fault in case.faults):
        return
    yield from long_scripts(case.site, case.max_pause + max(NOISE_MS, case.reader.held_up * 1000))


def long_scripts(site: Site, most: float) -> Iterator[str]:
    """Look for scripts that took longer than this and one key, in milliseconds, in the servers' own record."""
    for server in site.servers():
        entries: Any = server.client.slowlog_get(1000)
        for entry in entries:
            if entry["command"].startswith(b"EVALSHA") and entry["duration"] / 1000 > most + ONE_KEY_MS:
                yield f"a script took {entry['duration'] / 1000:.1f} ms: {entry['command'][:120]!r}"


def _screens(case: Case) -> Iterator[str]:
    return screens(case.runs)


def screens(runs: Iterable[Ended]) -> Iterator[str]:
    """Look for tracebacks, codes that nobody knows, and what did not end."""
    for run in runs:
        if run.code is None:
            yield f"it did not end: {run}"
        match = re.search(r"Traceback.*|Exception ignored.*|\w+Error: .*", run.out + run.err, re.DOTALL)
        if match:
            yield match[0][-1500:]
        if run.code not in (0, 1, 3, 4, 130, None) and (run.code or 0) > 0:
            yield f"exit code {run.code}: {run}"
