"""The main path: scan -> pairs -> script -> words."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial

from luamigrate import checks, scan, scripts
from luamigrate.errors import Error, UsageError, printable
from luamigrate.outcome import UNCLEAN, Batch, KeyOutcome, Word, reason_for
from luamigrate.rules import BUILT_IN, Pairs, Plan, Rule
from luamigrate.servers import Server

LARGEST_BATCH = 10_000


def migrate(
    server: Server,
    plan: Plan = BUILT_IN,
    *,
    dry_run: bool = False,
    batch_size: int = 100,
    validate: bool = True,
    ignore_expiry: bool = False,
    every_key: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Batch]:
    """Copy what the plan's rules match to its new names, and yield what came of each batch.

    Rules run in their order, each one to its end. A batch without keys announces a rule, or tells
    how far a scan is that found nothing lately. With `dry_run` nothing is written. With `every_key`
    `Batch.keys` lists all keys, not only those somebody has to look at. When `stop` says so, the
    batches under way are finished and yielded, and that is all.

    Raises Refused before anything is written where a check says no, Error where the server fails;
    what was yielded until then holds, and running again continues.
    """
    if not 1 <= batch_size <= LARGEST_BATCH:
        raise UsageError(f"the batch size must be from 1 to {LARGEST_BATCH}, not {batch_size}")
    checks.refuse_unless_ready(server, plan, dry_run=dry_run)
    scripts.register(server, "compare" if dry_run else "copy")
    script = scripts.compare if dry_run else scripts.copy
    ask = partial(script, validate=validate, ignore_expiry=ignore_expiry)
    for rule in plan:
        if stop():
            return
        yield Batch(rule)
        yield from _migrate_rule(server, rule, ask, batch_size, every_key=every_key, stop=stop)


def _migrate_rule(
    server: Server, rule: Rule, ask: scripts.Question, batch_size: int, *, every_key: bool, stop: Callable[[], bool]
) -> Iterator[Batch]:
    under_way: deque[Callable[[], Batch]] = deque()
    for found in scan.batches(server, rule.source, batch_size, stop):
        if not found.keys:
            yield Batch(rule, scanned=found.scanned)
            continue
        pairs = rule.pairs(found.keys)
        under_way.append(partial(_outcome, pairs, ask(server, pairs), found.scanned, every_key=every_key))
        if len(under_way) == scan.IN_FLIGHT:
            yield under_way.popleft()()
    while under_way:
        yield under_way.popleft()()


def _outcome(pairs: Pairs, call: scripts.ScriptCall, scanned: float, *, every_key: bool) -> Batch:
    """Wait for a script's answers and add them up."""
    answers = call.answer()
    if len(answers) != len(pairs.sources):
        raise Error(f"the script answered for {len(answers)} of {len(pairs.sources)} keys")
    batch = Batch(pairs.rule, scanned=scanned, seconds=call.seconds)
    parsed: dict[bytes, tuple[Word, str]] = {}
    for answer, times in Counter(answers).items():
        word, text = _parse(answer)
        if word is Word.GONE and not pairs.rule.source.has_star:
            continue  # Nothing was found here: the name comes from the rule.
        if word is Word.IGNORED:
            batch.ignored[text] += times
        else:
            batch.counts[word] += times
        if word is Word.FAILED:
            batch.reasons[reason_for(text)] += times
        elif sizes := _sizes(text):
            batch.elements.update(source=sizes[0] * times, target=sizes[1] * times)
        if every_key or word in UNCLEAN:
            parsed[answer] = word, text
    if parsed:
        batch.keys.extend(
            _key_outcome(source, target, *parsed[answer])
            for source, target, answer in zip(pairs.sources, pairs.targets, answers, strict=True)
            if answer in parsed
        )
    return batch


def _parse(answer: bytes) -> tuple[Word, str]:
    name, _, text = answer.partition(b" ")
    try:
        return Word(name.decode()), printable(text)
    except ValueError:
        raise Error(f"the script answered '{printable(answer)}', which is not a status word") from None


def _key_outcome(source: bytes, target: bytes, word: Word, text: str) -> KeyOutcome:
    if word in (Word.FAILED, Word.IGNORED):
        return KeyOutcome(source, target, word, text)
    return KeyOutcome(source, target, word, sizes=_sizes(text))


def _sizes(text: str) -> tuple[int, int] | None:
    source, _, target = text.partition(" ")
    return (int(source), int(target)) if target else None
