"""Pairs whose halves live in two slots of a cluster, and so mostly on two nodes: each verb's way with them.

No script sees both halves. So a batch takes several steps: read the source, act at the target on what was
read, read the source again. What was found counts only if the source has not changed in between, and a
target is replaced or deleted only while it is what we have seen. Payloads pass through here as they are.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from luamigrate.migration.cross_slot import Apart, Ask, Claim, Claims, Halves, Way
from luamigrate.model.errors import printable
from luamigrate.model.rules import ANY
from luamigrate.scripts import calls
from luamigrate.scripts.calls import Answer, Expiries, ScriptCall
from luamigrate.scripts.replies import CrossSlotReply, KeyId, KeyState, PairReply, key_state, said
from luamigrate.server.connection import Server

ATTEMPTS = 5
"""To find a moment in which nobody writes to a source."""

VANISHED: Answer = [b"missing", b"digest", b"missing"]
"""Of a target that was there at the last look: it is made again only if it still is not there at the next."""

UNREAD: list[list[bytes]] = [[], []]
"""In the place of a source's contents and moments: its digest is to tell."""

BUSY = b"failed busy: somebody wrote to it in each attempt; try again when it is quieter"


def copy(apart: Apart, *, validate: bool = True, ignore_expiry: bool, show_values: bool, filling: str = "") -> Way:
    """Make the target of the source's payload where it is absent; else compare, and fill what lacks something."""
    sources = yield from apart.first(apart.pairs.sources, "payload")
    contrast = _Contrast(apart, Expiries.NONE if ignore_expiry else Expiries.DIFFERENT, show_values, filling, acts=True)
    ours: dict[int, KeyId] = {}
    made: dict[int, KeyId] = {}
    filled: set[int] = set()
    for _ in range(ATTEMPTS):
        there = yield from _part_from_gone(apart, sources, ours)
        if not there:
            break
        ours, present = yield from _make(apart, there, ours)
        made |= ours
        claims = {index: Claim(there[index], b"copied") for index in ours}
        if validate:
            claims |= yield from contrast.claims(there, present)
        else:
            apart.settled |= dict.fromkeys(present, b"exists")
        filled |= {index for index, claim in claims.items() if claim.answer == b"filled"}
        confirmed, sources = yield from apart.again(claims, "payload", acts=True)
        apart.settled |= {
            index: b"filled" if index in filled and claim.answer == b"same" else claim.answer
            for index, claim in confirmed.items()
        }
    else:
        yield from _part_from_gone(apart, sources, ours)
    # What has no answer by now has changed in each attempt: what was made of it is an older state.
    unanswered = {index for index in made if index not in apart.settled}
    withdrawn = [index for index in made if index in unanswered or _is_no_copy(apart.settled[index])]
    yield from _withdraw(apart, {index: made[index] for index in withdrawn})
    for index in unanswered:
        apart.settled.setdefault(index, BUSY if apart.looked else VANISHED)
    _give_up(apart, b"differs")


def compare(
    apart: Apart,
    *,
    validate: bool = True,
    ignore_expiry: bool,
    show_values: bool,
    filling: str = "",
    sizes: bool = False,
) -> Way:
    """Say how each pair stands; write nothing."""
    beside = "size" if sizes else ""
    sources = yield from apart.first(apart.pairs.sources, beside)
    contrast = _Contrast(apart, Expiries.NONE if ignore_expiry else Expiries.DIFFERENT, show_values, filling)
    for _ in range(ATTEMPTS):
        there = yield from _part_from_gone(apart, sources, {})
        if not there:
            return
        targets = yield from apart.halves(apart.pairs.targets, there, beside=beside)
        present = contrast.present(there, targets, sizes=sizes)
        if validate:
            claims = yield from contrast.claims(there, present)
        else:
            claims = {index: Claim(there[index], b"exists") for index in present}
        confirmed, sources = yield from apart.again(claims, beside, acts=False)
        for index, claim in confirmed.items():
            apart.settled[index] = _sized(claim.answer, there[index], present[index]) if sizes else claim.answer
    yield from _part_from_gone(apart, sources, {})
    _give_up(apart, b"differs")


def remove(apart: Apart, *, delete: bool, show_values: bool) -> Way:
    """Delete the targets that equal their source, if that lives as long: the source is read last before it."""
    sources = yield from apart.first(apart.pairs.sources, "")
    contrast = _Contrast(apart, Expiries.SOONER, show_values)
    for _ in range(ATTEMPTS):
        there = yield from _part_from_gone(apart, sources, {})
        if not there:
            return
        present = contrast.present(there, (yield from apart.halves(apart.pairs.targets, there)))
        confirmed, sources = yield from apart.again((yield from contrast.claims(there, present)), "", acts=delete)
        equal = {index: claim for index, claim in confirmed.items() if claim.answer == b"same"}
        apart.settled |= {index: _kept(claim.answer) for index, claim in confirmed.items() if index not in equal}
        if not delete:
            apart.settled |= dict.fromkeys(equal, b"same")
            continue
        targets = {index: claim.target for index, claim in equal.items() if claim.target}
        for index, reply in (yield from _replace(apart, targets, {})).items():
            if reply == CrossSlotReply.CHANGED:
                sources[index] = equal[index].source
            else:
                apart.settled[index] = b"removed" if reply == CrossSlotReply.VANISHED else reply
    yield from _part_from_gone(apart, sources, {})
    _give_up(apart, [b"kept", b"reason", b"differs"])


def extra(apart: Apart) -> Way:
    """Find targets that have no source of the rule's type."""
    wanted = apart.pairs.rule.type
    targets = yield from apart.first(apart.pairs.targets, "")
    there = {index for index, target in targets.items() if target}
    apart.settled |= {index: PairReply.PAIRED for index in targets if index not in there}
    for index, reply in list(apart.settled.items()):
        if said(reply)[0] == PairReply.BIG:
            there.add(index)
        elif said(reply)[0] == b"ignored":
            apart.settled[index] = PairReply.PAIRED
    sources = yield from apart.ask(apart.pairs.sources, sorted(there), apart.reading())
    for index, reply in sources.items():
        match reply:
            case b"gone":
                apart.settled[index] = b"extra"
            case bytes() if said(reply)[0] != PairReply.BIG:
                apart.settled[index] = reply
            case _:
                kind = said(reply)[1].split(b" ")[0] if isinstance(reply, bytes) else key_state(reply).kind.encode()
                paired = wanted in (ANY, printable(kind))
                apart.settled[index] = PairReply.PAIRED if paired else [b"extra", b"source_type", kind]


@dataclass(frozen=True, slots=True)
class _Contrast:
    """How sources are held against targets."""

    apart: Apart
    expiries: Expiries
    """As cross_slot/compare.lua has it."""
    show_values: bool
    filling: str = ""
    acts: bool = False
    """Whether this look may write, and what it finds missing is to be looked at again."""

    def present(self, sources: dict[int, KeyState], targets: Halves, *, sizes: bool = False) -> dict[int, KeyState]:
        """Return the targets that are there, and settle the pairs of those that are not, or are too big."""
        for index, source in sources.items():
            if index not in targets:
                self.apart.settled[index] = _told_of(source, self.apart.settled[index])
            elif targets[index] is None:
                self.apart.settled[index] = b"missing %d 0" % source.beside[0] if sizes else b"missing"
        return {index: half for index, half in targets.items() if half}

    def claims(self, sources: dict[int, KeyState], targets: dict[int, KeyState]) -> Generator[None, None, Claims]:
        """Say how the targets stand to the sources as they were read."""
        claims: Claims = {}
        unlike, expiring = [], {}
        for index, target in targets.items():
            source = sources[index]
            if source.kind != target.kind:
                types: list[object] = [b"source_type", source.kind.encode(), b"target_type", target.kind.encode()]
                claims[index] = Claim(source, [b"differs", *types])
            elif source.digest != target.digest:
                unlike.append(index)
            elif source.at == target.at or not self.expiries:
                claims[index] = Claim(source, b"same", target.state)
            else:
                expiring[index] = replace(source, beside=UNREAD)
        # Which moments count as one, the server decides that has the target.
        if expiring:
            unlike += yield from self._hold(expiring, claims)
        # Unequal payloads prove nothing: what is in the sources travels to the targets.
        if unlike:
            pairs = self.apart.pairs
            halves = yield from self.apart.halves(pairs.sources, unlike, kind=pairs.rule.type, beside="contents")
            yield from self._hold((yield from _part_from_gone(self.apart, halves, {})), claims)
        return claims

    def _hold(self, sources: dict[int, KeyState], claims: Claims) -> Generator[None, None, list[int]]:
        """Hold sources against their targets, and add what is claimed of them; return those that need their contents.

        Sources of which no contents have been read are told by the digest of their payload.
        """
        apart, unlike = self.apart, []
        for index, reply in (yield from apart.ask(apart.pairs.targets, sources, self._against(sources))).items():
            match reply:
                case CrossSlotReply.UNLIKE:
                    unlike.append(index)
                case [bytes() as word, bytes() as digest, int() as at, *notes]:
                    claims[index] = Claim(sources[index], [word, *notes] if notes else word, (digest, at))
                case b"missing" if self.acts:
                    apart.settled[index] = VANISHED
                case _:
                    apart.settled[index] = _told_of(sources[index], reply)
        return unlike

    def _against(self, sources: dict[int, KeyState]) -> Ask:
        looked = self.apart.looked
        writes = self.acts and bool(self.filling) and bool(looked)

        def ask(server: Server, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
            halves: list[bytes | str | int] = []
            for index in indexes:
                source = sources[index]
                contents, moments = source.beside
                halves += [source.kind, source.at, source.digest]
                halves += [len(contents), *contents, len(moments), *moments]
                halves.append(looked[index] if writes else b"")
            return calls.cross_slot_compare(
                server,
                names,
                self.apart.pause,
                *halves,
                expiries=self.expiries,
                show_values=self.show_values,
                filling=self.filling,
                writes=writes,
                alone=alone,
            )

        return ask


def _make(
    apart: Apart, sources: dict[int, KeyState], ours: dict[int, KeyId]
) -> Generator[None, None, tuple[dict[int, KeyId], dict[int, KeyState]]]:
    """Make targets; where they are `ours`, as we left them, replace them.

    Returns those that are ours now, and the targets that somebody else has made. One of ours that is no more
    what it was belongs to somebody else: it is not made again.
    """
    ours = {index: state for index, state in ours.items() if index in sources}
    replies = (yield from _replace(apart, ours, sources)) if ours else {}
    lost = {index for index, reply in replies.items() if reply == CrossSlotReply.CHANGED}
    seen = {index for index in sources if apart.looked and apart.looked[index] != b"missing"}

    def create(server: Server, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
        payloads: list[bytes | int] = []
        for index in indexes:
            source = sources[index]
            payloads += [b"" if index in lost | seen else source.beside[0], source.at, source.size]
        return calls.cross_slot_create(server, names, apart.pause, *payloads, alone=alone)

    fresh = [index for index in sources if index not in ours or index in lost]
    replies |= yield from apart.ask(apart.pairs.targets, fresh, create)
    made: dict[int, KeyId] = {}
    present: dict[int, KeyState] = {}
    for index, reply in replies.items():
        match reply:
            case bytes() if said(reply)[0] == CrossSlotReply.CREATED:
                made[index] = said(reply)[1], sources[index].at
            case CrossSlotReply.VANISHED:
                apart.settled[index] = b"gone"
            case b"missing":
                apart.settled[index] = VANISHED
            case bytes():
                apart.settled[index] = _told_of(sources[index], reply)
            case _:
                present[index] = key_state(reply)
    return made, present


def _replace(
    apart: Apart, targets: dict[int, KeyId], sources: dict[int, KeyState]
) -> Generator[None, None, dict[int, Answer]]:
    """Replace targets while they are what they were; delete those for which there is no source."""

    def ask(server: Server, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
        payloads: list[bytes | int] = []
        for index in indexes:
            source = sources.get(index)
            payloads += [*targets[index], *((source.beside[0], source.at, source.size) if source else (b"", -1, 0))]
        return calls.cross_slot_replace(server, names, apart.pause, *payloads, alone=alone)

    return (yield from apart.ask(apart.pairs.targets, targets, ask))


def _withdraw(apart: Apart, ours: dict[int, KeyId]) -> Generator[None, None, None]:
    """Delete targets that we have made and nobody has changed since; tell of those that cannot be."""
    if ours:
        replies = yield from _replace(apart, ours, {})
        apart.settled |= {
            index: reply
            for index, reply in replies.items()
            if reply not in (CrossSlotReply.VANISHED, CrossSlotReply.CHANGED)
        }


def _is_no_copy(answer: Answer) -> bool:
    """Tell whether a source has become another type meanwhile, or too big for this way, or cannot be read any more."""
    return said(answer)[0] in (b"ignored", PairReply.BIG, b"failed")


def _part_from_gone(
    apart: Apart, sources: Halves, ours: dict[int, KeyId]
) -> Generator[None, None, dict[int, KeyState]]:
    """Settle the pairs whose source is gone, with the targets that are ours, and return the other sources."""
    gone = [index for index, half in sources.items() if half is None]
    apart.settled |= dict.fromkeys(gone, b"gone")
    yield from _withdraw(apart, {index: ours[index] for index in gone if index in ours})
    return {index: half for index, half in sources.items() if half}


def _give_up(apart: Apart, answer: Answer) -> None:
    """Settle what changed in each attempt: a first look will be followed by another."""
    for index in range(apart.begun):
        apart.settled.setdefault(index, BUSY if apart.looked else answer)


def _told_of(source: KeyState, reply: Answer) -> Answer:
    """Return what a target's holder says, as of the pair: it is the source's type that counts."""
    if isinstance(reply, bytes) and said(reply)[0] == PairReply.BIG:
        return PairReply.BIG + b" " + source.kind.encode() + b" " + reply.rsplit(b" ", 1)[1]
    return reply


def _kept(answer: Answer) -> Answer:
    word, *notes = answer if isinstance(answer, list) else [answer]
    return [b"kept", *notes, b"reason", word]


def _sized(answer: Answer, source: KeyState, target: KeyState) -> Answer:
    sizes = source.beside[0], target.beside[0]
    if isinstance(answer, bytes):
        return answer + b" %d %d" % sizes
    return [*answer, b"source_size", sizes[0], b"target_size", sizes[1]]
