"""How the targets stand before a follow begins: it starts only where each is absent, equal, or may be replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from luamigrate.migration.direction import Direction
from luamigrate.migration.groups import streams_with_groups
from luamigrate.migration.options import FollowOptions
from luamigrate.migration.runner import Runner
from luamigrate.migration.throttle import Throttle
from luamigrate.migration.verbs import Compare, FindExtra, Verb
from luamigrate.model.control import Control
from luamigrate.model.cutover import Side
from luamigrate.model.errors import Refused, printable
from luamigrate.model.plans import Plan
from luamigrate.model.status import Command, Word
from luamigrate.model.summary import Batch
from luamigrate.scripts import library
from luamigrate.server.deployment import Deployment

UNEQUAL = (Word.DIFFERS, Word.PARTIAL, Word.EXPIRY)


class Survey:
    """Compares what is there, writes nothing, and says whether a follow may begin."""

    def __init__(
        self,
        deployment: Deployment,
        plan: Plan,
        options: FollowOptions,
        control: Control,
        *,
        owned: bool,
        side: Side = Side.SOURCES,
    ) -> None:
        self._deployment, self._plan, self._options, self._control = deployment, plan, options, control
        self._side = side
        self.owned = owned
        """Whether a record says that the targets were those of a follow."""
        self._found: Counter[Word] = Counter()
        self._of_other_types = 0
        """How many sources are there, but not of their rule's type, while their targets are."""
        self.is_clean = True
        """Whether all targets may be claimed."""

    def batches(self) -> Iterator[Batch]:
        """Yield what is found. Raises Refused at the end where a follow must not begin."""
        if not self._options.allow_groups:
            self._refuse_groups()
        verbs: list[Verb] = [FindExtra(of_all_types=True)]
        # In a dry run it tells what it would copy; and after a flip nothing is written that was not counted.
        is_flipped = self._side is Side.TARGETS
        if is_flipped or self._options.dry_run or not (self.owned or self._options.replace):
            verbs.insert(0, Compare(command=Command.FOLLOW, dry_run=not is_flipped))
        for verb in verbs:
            for batch in self._carried_out(verb):
                self._found.update(batch.tally.counts)
                self._of_other_types += sum(key.word is Word.EXTRA and bool(key.notes) for key in batch.keys)
                yield batch
        if is_flipped:
            self._decide_about_sources()
        else:
            self._decide()

    def _carried_out(self, verb: Verb) -> Iterator[Batch]:
        for primary in self._deployment.primaries:
            for name in verb.scripts:
                library.register(primary, name)
        throttle = Throttle(
            deployment=self._deployment,
            limits=self._options.limits,
            verb=verb,
            ignored=self._options.ignored_checks,
            control=self._control,
        )
        runner = Runner(self._deployment, self._plan, verb, self._options, control=self._control, throttle=throttle)
        for rule in self._plan:
            yield from runner.run_rule(rule)
        yield from runner.finish_rechecks()

    def _decide(self) -> None:
        unequal = {word: self._found[word] for word in UNEQUAL if self._found[word]}
        problems = []
        if unequal and not (self.owned or self._options.replace):
            counts = ", ".join(f"{count:,} {word}" for word, count in unequal.items())
            problems.append(f"targets that are not what their sources are: {counts} (--replace makes them so)")
        # After a crash, targets whose sources were deleted meanwhile are left: they keep it out of step.
        if self._found[Word.EXTRA] and not self.owned:
            count = f"{self._found[Word.EXTRA]:,} extra"
            problems.append(f"targets that have no source: {count} (they are not ours to delete: see to them yourself)")
        if problems and "targets" not in self._options.ignored_checks:
            raise Refused(f"targets: {'; '.join(problems)}; --report FILE names them")
        self.is_clean = not unequal or self.owned or self._options.replace

    def _decide_about_sources(self) -> None:
        """Decide after a flip, when the old names are made what the new ones are: an absent one is only added."""
        unequal = ", ".join(f"{self._found[word]:,} {word}" for word in UNEQUAL if self._found[word])
        problems = [f"old names that are not what the new ones are, and would be overwritten: {unequal}"] * bool(
            unequal
        )
        if others := self._of_other_types:
            problems.append(f"old names of another type than their rule's, which would be overwritten: {others:,}")
        if lost := self._found[Word.MISSING]:
            problems.append(f"old names without a new one, which would be deleted: {lost:,}")
        if absent := self._found[Word.EXTRA] - others:
            added = f"; new names without an old one, which would be copied back: {absent:,}"
        else:
            added = ""
        is_confirmed = self._options.cutover is not None and self._options.cutover.confirmed
        if problems and not is_confirmed and "targets" not in self._options.ignored_checks:
            raise Refused(
                f"targets: {'; '.join(problems)}{added}; --report FILE names them, --yes makes the old names what the "
                "new ones are"
            )
        self.is_clean = not problems or is_confirmed

    def _refuse_groups(self) -> None:
        direction = Direction(self._plan, self._deployment.database, self._side)
        for name, _ in streams_with_groups(self._deployment, direction, self._control.stop):
            raise Refused(
                f"follow: the stream {printable(name)} has groups, of whose changes the server tells nobody: "
                "--allow-groups follows its entries alone"
            )
