"""How the targets stand before a follow begins: it starts only where each is absent, equal, or may be replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from luamigrate.migration.options import FollowOptions
from luamigrate.migration.runner import Runner
from luamigrate.migration.throttle import Throttle
from luamigrate.migration.verbs import Compare, FindExtra, Verb
from luamigrate.model.control import Control
from luamigrate.model.errors import Refused, printable
from luamigrate.model.plans import Plan
from luamigrate.model.rules import ANY
from luamigrate.model.status import Command, Word
from luamigrate.model.summary import Batch
from luamigrate.scripts import library
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered
from luamigrate.server.info import cursor_and_names

UNEQUAL = (Word.DIFFERS, Word.PARTIAL, Word.EXPIRY)
KEYS_PER_SCAN = 500


class Survey:
    """Compares what is there, writes nothing, and says whether a follow may begin."""

    def __init__(
        self, deployment: Deployment, plan: Plan, options: FollowOptions, control: Control, *, owned: bool
    ) -> None:
        self._deployment, self._plan, self._options, self._control = deployment, plan, options, control
        self.owned = owned
        """Whether a record says that the targets were those of a follow."""
        self._found: Counter[Word] = Counter()
        self.is_clean = True
        """Whether all targets may be claimed."""

    def batches(self) -> Iterator[Batch]:
        """Yield what is found. Raises Refused at the end where a follow must not begin."""
        if not self._options.allow_groups:
            self._refuse_groups()
        verbs: list[Verb] = [FindExtra(of_all_types=True)]
        # In a dry run it tells what it would copy.
        if self._options.dry_run or not (self.owned or self._options.replace):
            verbs.insert(0, Compare(command=Command.FOLLOW, dry_run=True))
        for verb in verbs:
            for batch in self._carried_out(verb):
                self._found.update(batch.tally.counts)
                yield batch
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

    def _refuse_groups(self) -> None:
        for server in self._deployment.primaries:
            for name in self._streams(server):
                groups = None
                with suppress(Answered):  # it is gone
                    groups = server.call("XINFO", "GROUPS", name).answer()
                if groups:
                    raise Refused(
                        f"follow: the stream {printable(name)} has groups, of whose changes the server tells nobody: "
                        "--allow-groups follows its entries alone"
                    )

    def _streams(self, server: Connection) -> Iterator[bytes]:
        """Yield the names of the streams among the sources."""
        if not any(rule.type in ("stream", ANY) for rule in self._plan):
            return
        cursor = b"0"
        while True:
            cursor, names = cursor_and_names(
                server.call("SCAN", cursor, "COUNT", KEYS_PER_SCAN, "TYPE", "stream").answer()
            )
            for name in names:
                rule = self._plan.rule_for(name)
                if rule and rule.type in ("stream", ANY):
                    yield name
            if cursor == b"0" or self._control.stop():
                return
