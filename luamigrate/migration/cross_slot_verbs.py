"""What each verb does with pairs whose source and target live in two slots of a cluster, mostly on two nodes.

No script sees both keys. So a batch takes several steps: read the source, act at the target on what was
read, ask whether the source is as it was. What was found counts only if it has not changed in between, and a
target is replaced or deleted only while it is what we have seen. Payloads pass through here as they are.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from luamigrate.migration.cross_slot import Ask, CrossSlotBatch, KeyStates, Provisional, Provisionals, Steps
from luamigrate.model.comparison import Comparison
from luamigrate.model.errors import printable
from luamigrate.model.rules import ANY
from luamigrate.model.status import TargetAbsent, Word
from luamigrate.scripts import calls
from luamigrate.scripts.calls import Answer, Expiries, ScriptCall
from luamigrate.scripts.replies import CrossSlotReply, KeyId, KeyState, PairReply, equal_expiry, key_state, said
from luamigrate.server.connection import Connection

ATTEMPTS = 5
"""To find a moment in which nobody writes to a source."""

VANISHED: Answer = [Word.MISSING.reply, b"digest", TargetAbsent.argument]
"""For a target that was there at the last check: it is made again only if the next one finds none either."""

UNREAD: list[list[bytes]] = [[], []]
"""In the place of a source's contents and moments: its digest is to tell."""

BUSY = Word.FAILED.reply + b" busy: somebody wrote to it in each attempt; try again when it is quieter"


def copy(batch: CrossSlotBatch, comparison: Comparison) -> Steps:
    """Make the target of the source's payload where it is absent; else compare, and fill what lacks something."""
    sources = yield from batch.read_sources("payload")
    comparing = Comparing(batch, comparison, acts=True)
    ours: dict[int, KeyState] = {}
    made: dict[int, KeyState] = {}
    filled: set[int] = set()
    for _ in range(ATTEMPTS):
        there = yield from _without_gone(batch, sources, ours)
        if not there:
            break
        ours, present = yield from _make(batch, there, ours)
        made |= ours
        found = {index: Provisional(there[index], Word.COPIED.reply) for index in ours}
        if comparison.validate:
            found |= yield from comparing.provisionals(there, present)
        else:
            batch.results |= dict.fromkeys(present, Word.EXISTS.reply)
        filled |= {index for index, result in found.items() if result.answer == Word.FILLED.reply}
        confirmed, sources = yield from batch.reread(found, "payload", acts=True)
        batch.results |= {
            index: Word.FILLED.reply if index in filled and result.answer == Word.SAME.reply else result.answer
            for index, result in confirmed.items()
        }
    else:
        yield from _without_gone(batch, sources, ours)
    yield from _withdraw_older(batch, made)
    _give_up(batch, Word.DIFFERS.reply)


def compare(batch: CrossSlotBatch, comparison: Comparison) -> Steps:
    """Say how each pair stands; write nothing."""
    sizes = comparison.sizes
    beside = "size" if sizes else ""
    sources = yield from batch.read_sources(beside)
    comparing = Comparing(batch, comparison)
    for _ in range(ATTEMPTS):
        there = yield from _without_gone(batch, sources, {})
        if not there:
            return
        targets = yield from batch.read_targets(there, beside)
        present = comparing.present(there, targets, sizes=sizes)
        if comparison.validate:
            found = yield from comparing.provisionals(there, present)
        else:
            found = {index: Provisional(there[index], Word.EXISTS.reply) for index in present}
        confirmed, sources = yield from batch.reread(found, beside, acts=False)
        for index, result in confirmed.items():
            batch.results[index] = _sized(result.answer, there[index], present[index]) if sizes else result.answer
    yield from _without_gone(batch, sources, {})
    _give_up(batch, Word.DIFFERS.reply)


def remove(batch: CrossSlotBatch, comparison: Comparison, *, delete: bool) -> Steps:
    """Delete the targets that equal their source, if that lives as long: the source is read last before it."""
    sources = yield from batch.read_sources("")
    comparing = Comparing(batch, comparison, removes=True)
    for _ in range(ATTEMPTS):
        there = yield from _without_gone(batch, sources, {})
        if not there:
            return
        present = comparing.present(there, (yield from batch.read_targets(there)))
        found = yield from comparing.provisionals(there, present)
        confirmed, sources = yield from batch.reread(found, "", acts=delete)
        equal = {index: result for index, result in confirmed.items() if result.answer == Word.SAME.reply}
        batch.results |= {index: _kept(result.answer) for index, result in confirmed.items() if index not in equal}
        if not delete:
            batch.results |= dict.fromkeys(equal, Word.SAME.reply)
            continue
        targets = {index: result.target.state for index, result in equal.items() if result.target}
        for index, reply in (yield from _replace(batch, targets, {})).items():
            if reply == CrossSlotReply.CHANGED:
                sources[index] = equal[index].source
            else:
                batch.results[index] = Word.REMOVED.reply if reply == CrossSlotReply.VANISHED else reply
    yield from _without_gone(batch, sources, {})
    _give_up(batch, [Word.KEPT.reply, b"reason", Word.DIFFERS.reply])


def find_extra(batch: CrossSlotBatch, *, of_all_types: bool) -> Steps:
    """Find targets, of the rule's type or `of_all_types`, that have no source of the rule's type."""
    wanted = batch.pairs.rule.type
    targets = yield from batch.read_found(batch.pairs.targets, "")
    there = {index for index, target in targets.items() if target}
    batch.results |= {index: PairReply.PAIRED for index in targets if index not in there}
    for index, reply in list(batch.results.items()):
        if said(reply)[0] == PairReply.BIG or (of_all_types and said(reply)[0] == Word.IGNORED.reply):
            there.add(index)
        elif said(reply)[0] == Word.IGNORED.reply:
            batch.results[index] = PairReply.PAIRED
    sources = yield from batch.ask(batch.pairs.sources, sorted(there), batch.reading(beside="type"))
    for index, reply in sources.items():
        match said(reply):
            case (Word.GONE.reply, _):
                batch.results[index] = Word.EXTRA.reply
            case (CrossSlotReply.TYPE, kind):
                paired = wanted in (ANY, printable(kind))
                batch.results[index] = PairReply.PAIRED if paired else [Word.EXTRA.reply, b"source_type", kind]
            case _:
                batch.results[index] = reply


@dataclass(frozen=True, slots=True)
class Comparing:
    """The targets of a batch being compared with their sources."""

    batch: CrossSlotBatch
    comparison: Comparison
    acts: bool = False
    """Whether this check may write, and what it finds missing is to be checked again."""
    removes: bool = False
    """Whether only what expires sooner in the source than in the target counts as different."""

    @property
    def expiries(self) -> Expiries:
        """Which expiries count, as cross_slot/compare.lua is told."""
        if self.removes:
            return Expiries.SOONER
        return Expiries.NONE if self.comparison.ignore_expiry else Expiries.DIFFERENT

    def present(self, sources: dict[int, KeyState], targets: KeyStates, *, sizes: bool = False) -> dict[int, KeyState]:
        """Return the targets that are there; for the other pairs, store the result."""
        for index, source in sources.items():
            if index not in targets:
                self.batch.results[index] = _told_of(source, self.batch.results[index])
            elif targets[index] is None:
                self.batch.results[index] = (
                    Word.MISSING.reply + b" %d 0" % source.beside[0] if sizes else Word.MISSING.reply
                )
        return {index: state for index, state in targets.items() if state}

    def provisionals(
        self, sources: dict[int, KeyState], targets: dict[int, KeyState]
    ) -> Generator[None, None, Provisionals]:
        """Return how the targets compare to their sources as they were read."""
        found: Provisionals = {}
        unlike, expiring = [], {}
        for index, target in targets.items():
            source = sources[index]
            if source.kind != target.kind:
                types: list[object] = [b"source_type", source.kind.encode(), b"target_type", target.kind.encode()]
                found[index] = Provisional(source, [Word.DIFFERS.reply, *types])
            elif not source.equals(target):
                unlike.append(index)
            elif source.at == target.at or not self.expiries:
                found[index] = Provisional(source, Word.SAME.reply, target)
            else:
                expiring[index] = source._replace(told=source.digest, beside=UNREAD)
        # Which moments count as one, the server decides that has the target.
        if expiring:
            unlike += yield from self._compare_contents(expiring, found)
        # Unequal payloads prove nothing: what is in the sources travels to the targets.
        if unlike:
            pairs = self.batch.pairs
            states = yield from self.batch.read(pairs.sources, unlike, kind=pairs.rule.type, beside="contents")
            yield from self._compare_contents((yield from _without_gone(self.batch, states, {})), found)
        return found

    def _compare_contents(self, sources: dict[int, KeyState], found: Provisionals) -> Generator[None, None, list[int]]:
        """Compare at the targets' nodes, adding to what was found; return the pairs that need their sources' contents.

        A source of which no contents have been read is compared by the digest of its payload.
        """
        batch, unlike = self.batch, []
        for index, reply in (yield from batch.ask(batch.pairs.targets, sources, self._against(sources))).items():
            match reply:
                case CrossSlotReply.UNLIKE:
                    unlike.append(index)
                case [bytes() as word, bytes() as digest, int() as at, *notes]:
                    source = sources[index]
                    target = KeyState(source.kind, at, digest, source.size, [])
                    found[index] = Provisional(source, [word, *notes] if notes else word, target)
                case Word.MISSING.reply if self.acts:
                    batch.results[index] = VANISHED
                case _:
                    batch.results[index] = _told_of(sources[index], reply)
        return unlike

    def _against(self, sources: dict[int, KeyState]) -> Ask:
        lacking = self.batch.pairs.digests
        writes = self.acts and bool(self.comparison.filling) and bool(lacking)

        def ask(server: Connection, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
            states: list[bytes | str | int] = []
            for index in indexes:
                source = sources[index]
                contents, moments = source.beside
                states += [source.kind, source.at, source.digest]
                states += [len(contents), *contents, len(moments), *moments]
                states.append(lacking[index] if writes else b"")
            return calls.cross_slot_compare(
                server,
                names,
                self.batch.pause,
                *states,
                expiries=self.expiries,
                show_values=self.comparison.show_values,
                filling=self.comparison.filling,
                writes=writes,
                alone=alone,
            )

        return ask


def _make(
    batch: CrossSlotBatch, sources: dict[int, KeyState], ours: dict[int, KeyState]
) -> Generator[None, None, tuple[dict[int, KeyState], dict[int, KeyState]]]:
    """Make targets; where they are `ours`, as we left them, replace them.

    Returns those that are ours now, and the targets that somebody else has made. One of ours that is no more
    what it was belongs to somebody else: it is not made again.
    """
    ours = {index: target for index, target in ours.items() if index in sources}
    replies = (yield from _replace(batch, _known(ours), sources)) if ours else {}
    lost = {index for index, reply in replies.items() if reply == CrossSlotReply.CHANGED}
    seen = {index for index in sources if batch.pairs.lacking and batch.pairs.lacking[index] != TargetAbsent()}
    kept = lost | seen

    def create(server: Connection, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
        payloads: list[bytes | int] = []
        for index in indexes:
            _, at, _, size, (payload,) = sources[index]
            payloads += (b"" if index in kept else payload, at, size)
        return calls.cross_slot_create(server, names, batch.pause, *payloads, alone=alone)

    fresh = [index for index in sources if index not in ours or index in lost]
    replies |= yield from batch.ask(batch.pairs.targets, fresh, create)
    if [*replies.values()].count(CrossSlotReply.CREATED) == len(sources):
        return sources, {}
    return _sorted_out(batch, sources, replies)


def _sorted_out(
    batch: CrossSlotBatch, sources: dict[int, KeyState], replies: dict[int, Answer]
) -> tuple[dict[int, KeyState], dict[int, KeyState]]:
    """Return the targets that have been made, and those that were there; what else was answered is a result."""
    made: dict[int, KeyState] = {}
    present: dict[int, KeyState] = {}
    for index, reply in replies.items():
        source = sources[index]
        if reply == CrossSlotReply.CREATED:
            made[index] = source
        elif (expiry := equal_expiry(reply)) is not None:
            present[index] = source.expiring(expiry)
        elif isinstance(reply, list):
            present[index] = key_state(reply)
        elif (told := said(reply))[0] == CrossSlotReply.CREATED:
            made[index] = source._replace(told=told[1])
        elif reply == CrossSlotReply.VANISHED:
            batch.results[index] = Word.GONE.reply
        else:
            batch.results[index] = VANISHED if reply == Word.MISSING.reply else _told_of(source, reply)
    return made, present


def _known(targets: dict[int, KeyState]) -> dict[int, KeyId]:
    return {index: target.state for index, target in targets.items()}


def _replace(
    batch: CrossSlotBatch, targets: dict[int, KeyId], sources: dict[int, KeyState]
) -> Generator[None, None, dict[int, Answer]]:
    """Replace targets while they are what they were; delete those for which there is no source."""

    def ask(server: Connection, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
        payloads: list[bytes | int] = []
        for index in indexes:
            source = sources.get(index)
            payloads += [*targets[index], *((source.beside[0], source.at, source.size) if source else (b"", -1, 0))]
        return calls.cross_slot_replace(server, names, batch.pause, *payloads, alone=alone)

    return (yield from batch.ask(batch.pairs.targets, targets, ask))


def _withdraw(batch: CrossSlotBatch, ours: dict[int, KeyState]) -> Generator[None, None, None]:
    """Delete targets that we have made and nobody has changed since; tell of those that cannot be."""
    if ours:
        replies = yield from _replace(batch, _known(ours), {})
        left = {
            i: reply for i, reply in replies.items() if reply not in (CrossSlotReply.VANISHED, CrossSlotReply.CHANGED)
        }
        batch.results |= left


def _withdraw_older(batch: CrossSlotBatch, made: dict[int, KeyState]) -> Generator[None, None, None]:
    """Delete targets that were made of a source which has changed in each attempt, or cannot be copied after all."""
    unanswered = made.keys() - batch.results.keys()
    copied = Word.COPIED.reply
    doubtful = [index for index in made if batch.results.get(index) != copied]
    withdrawn = [index for index in doubtful if index in unanswered or _is_no_copy(batch.results[index])]
    yield from _withdraw(batch, {index: made[index] for index in withdrawn})
    for index in unanswered:
        batch.results.setdefault(index, BUSY if batch.pairs.lacking else VANISHED)


def _is_no_copy(answer: Answer) -> bool:
    """Tell whether a source has become another type meanwhile, or too large for this, or cannot be read any more."""
    return said(answer)[0] in (Word.IGNORED.reply, PairReply.BIG, Word.FAILED.reply)


def _without_gone(
    batch: CrossSlotBatch, sources: KeyStates, ours: dict[int, KeyState]
) -> Generator[None, None, dict[int, KeyState]]:
    """Return the sources that are there; where one is gone, store that result and delete the target if it is ours."""
    gone = [index for index, state in sources.items() if state is None]
    batch.results |= dict.fromkeys(gone, Word.GONE.reply)
    yield from _withdraw(batch, {index: ours[index] for index in gone if index in ours})
    return {index: state for index, state in sources.items() if state}


def _give_up(batch: CrossSlotBatch, answer: Answer) -> None:
    """Store a result for what changed in each attempt: a first check will be followed by another."""
    for index in range(batch.answered):
        batch.results.setdefault(index, BUSY if batch.pairs.lacking else answer)


def _told_of(source: KeyState, reply: Answer) -> Answer:
    """Return a target's reply as one about the pair: it is the source's type that counts."""
    if isinstance(reply, bytes) and said(reply)[0] == PairReply.BIG:
        return PairReply.BIG + b" " + source.kind.encode() + b" " + reply.rsplit(b" ", 1)[1]
    return reply


def _kept(answer: Answer) -> Answer:
    word, *notes = answer if isinstance(answer, list) else [answer]
    return [Word.KEPT.reply, *notes, b"reason", word]


def _sized(answer: Answer, source: KeyState, target: KeyState) -> Answer:
    sizes = source.beside[0], target.beside[0]
    if isinstance(answer, bytes):
        return answer + b" %d %d" % sizes
    return [*answer, b"source_size", sizes[0], b"target_size", sizes[1]]
