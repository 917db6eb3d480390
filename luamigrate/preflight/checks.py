"""The checks before the first write: each has a name, and says what it found and what to do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from redis.crc import key_slot

from luamigrate.model.cutover import CutoverOptions
from luamigrate.model.errors import Refused, printable
from luamigrate.model.limits import Limits
from luamigrate.model.patterns import escaped
from luamigrate.model.plans import Plan
from luamigrate.model.rules import Rule
from luamigrate.model.status import Command, Finding, Verdict
from luamigrate.model.tables import some_of
from luamigrate.preflight import emptiness, sampling
from luamigrate.preflight.following import following
from luamigrate.preflight.memory import memory_and_eviction
from luamigrate.preflight.needs import Needs
from luamigrate.preflight.permissions import Permissions
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered
from luamigrate.server.identity import PRIMARY, REPLICA
from luamigrate.server.info import read_database_sizes, read_info, tells_how_far_replicas_are

DEFAULTS = Limits()

WAITED_ON = ("list", "zset", "stream")
"""Types on whose names a client may wait until there is an element."""

ANY_NAMES = (b"1", b"2", b"3", b"4")
"""Examples for a star: where these share a slot, all names do."""

_SAVES = ("rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status")
"""Fields of INFO that say how the last saves ended."""

_WAITING_COMMANDS = re.compile(r"^(b(l|z|r)\w+|xread|xreadgroup)$")


def run_checks(
    deployment: Deployment,
    plan: Plan,
    command: Command,
    *,
    dry_run: bool = False,
    fills: bool = False,
    extra: bool = False,
    limits: Limits = DEFAULTS,
    ignored: frozenset[str] = frozenset(),
    warns_of_nothing: bool = False,
    cutover: CutoverOptions | None = None,
) -> list[Finding]:
    """Run the checks for a command. Writes nothing. Raises Refused where it cannot work here at all.

    With `warns_of_nothing`, warn where no key matches any rule; a run finds that out by itself. A follow has
    `cutover` where it can cut over.
    """
    flag, freezes = (cutover.flag, cutover.freezes) if cutover else (None, False)
    findings = [_role(deployment, command)]
    if findings[0].verdict is not Verdict.REFUSED or "role" in ignored:
        needs = Needs(plan=plan, command=command, dry_run=dry_run, fills=fills, extra=extra, flag=flag, freezes=freezes)
        if deployment.slots and needs.databases:
            # Whoever ignored that would have sources deleted as their own targets.
            text = "in a cluster source and target are in one database: leave out --to-database (in plans: database)"
            raise Refused(f"databases: {text}")
        nodes = [(server.place, _of_server(deployment, server, needs, limits)) for server in deployment.primaries]
        may_read = all(finding.verdict is not Verdict.REFUSED for _, found in nodes for finding in found)
        findings += _together(nodes)
        if command in (Command.RUN, Command.FOLLOW) and may_read:
            findings += _of_the_data(deployment, plan, warns_of_nothing=warns_of_nothing)
        if may_read:
            findings += following(deployment, plan, command, flag)
    return [_overridden(finding) if finding.name in ignored else finding for finding in findings]


def _together(nodes: list[tuple[str, list[Finding]]]) -> list[Finding]:
    """Merge the findings of one name: what all nodes of a cluster say is said once."""
    names = list(dict.fromkeys(finding.name for _, found in nodes for finding in found))
    together = []
    for name in names:
        found = [(place, finding) for place, findings in nodes for finding in findings if finding.name == name]
        worst = max((finding.verdict for _, finding in found), key=list(Verdict).index)
        texts: dict[str, list[str]] = {}
        for place, finding in found:
            if finding.verdict is worst:
                texts.setdefault(finding.text, []).append(place)
        everywhere = len(texts) == 1 and len(found) == len(next(iter(texts.values())))
        lines = list(texts) if everywhere else [f"{', '.join(places)}: {text}" for text, places in texts.items()]
        together.append(Finding(name, worst, "; ".join(lines)))
    return together


def refuse(findings: list[Finding]) -> None:
    """Raise Refused, with a line for each finding that refuses, where there are any."""
    refused = [str(finding) for finding in findings if finding.verdict is Verdict.REFUSED]
    if refused:
        raise Refused("\n".join(refused))


def warnings(findings: list[Finding]) -> tuple[str, ...]:
    """Return the lines of the findings that warn."""
    return tuple(str(finding) for finding in findings if finding.verdict is Verdict.WARNING)


def _overridden(finding: Finding) -> Finding:
    if finding.verdict is not Verdict.REFUSED:
        return finding
    return replace(finding, verdict=Verdict.WARNING, text=f"{finding.text} (ignored, as --ignore-check says)")


def _role(deployment: Deployment, command: Command) -> Finding:
    if deployment.slots and deployment.slots.unassigned:
        text = f"{deployment.slots.unassigned:,} of the cluster's slots are held by no node: assign them first"
        return Finding("role", Verdict.REFUSED, text)
    if deployment.identity.mode == "sentinel":
        raise Refused("role: this is a Sentinel, no data server: sentinel://host:port/service asks it for the primary")
    if deployment.role == PRIMARY:
        text = f"a cluster of {len(deployment.primaries)} primaries" if deployment.slots else "a primary"
        return Finding("role", Verdict.OK, text)
    if deployment.role != REPLICA:
        text = "the server does not tell its role (HELLO, ROLE, INFO): see to it that this is a primary, and no replica"
        return Finding("role", Verdict.WARNING, text)
    if command is Command.VERIFY:
        return Finding(
            "role",
            Verdict.WARNING,
            "this is a REPLICA: what is compared is what has reached it, which may be older than its primary, and a "
            "key that has expired is gone only once the primary says so.",
        )
    text = "this is a replica, and what is written here would be lost: give the address of the primary"
    return Finding("role", Verdict.REFUSED, text)


def _of_server(deployment: Deployment, server: Connection, needs: Needs, limits: Limits) -> list[Finding]:
    permitted = Permissions(deployment, server, needs)
    findings = list(_permissions(server, needs.command, permitted))
    return findings + list(_replicas(server, limits) if needs.command is not Command.VERIFY else ())


def _permissions(server: Connection, command: Command, permitted: Permissions) -> Iterator[Finding]:
    try:
        found = permitted.refuse_unless_permitted()
    except Refused as refusal:
        name, _, text = str(refusal).partition(": ")
        yield Finding(name, Verdict.REFUSED, text)
        return
    text = f"what is needed may be called, on the rules' keys{_untried(found.untried)}"
    yield Finding("permissions", Verdict.OK, text)
    without = f"; done without what is refused: {', '.join(found.done_without)}" if found.done_without else ""
    if found.failing:
        text = f"vector sets would fail, should there be any: the server refuses {', '.join(found.failing)} in scripts"
        yield Finding("scripts", Verdict.WARNING, f"{text}{without}")
    else:
        yield Finding("scripts", Verdict.OK, f"are kept by the server, and may call what they need{without}")
    who = server.identity
    if databases := permitted.needs.databases:
        numbers = ", ".join(map(str, databases))
        yield Finding("databases", Verdict.OK, f"the targets' can be reached: {numbers}")
    yield Finding("version", Verdict.OK, f"{who.product} {who.version}")
    yield Finding("writes", Verdict.OK, "none are needed" if command is Command.VERIFY else "the server takes them")
    try:
        untried = permitted.refuse_unless_large_keys_permitted()
    except Refused as refusal:
        text = f"keys too big for one script would fail (noperm): {str(refusal).partition(': ')[2]}"
        yield Finding("big-keys", Verdict.WARNING, text)
    else:
        refused = "MEMORY" in found.done_without
        how = "; weighed by a few of their elements, because MEMORY is refused" if refused else ""
        yield Finding("big-keys", Verdict.OK, f"can be copied in chunks{how}{_untried(untried)}")


def _untried(commands: list[str]) -> str:
    return f"; not tried, because nothing here can without writing: {', '.join(commands)}" if commands else ""


def _replicas(server: Connection, limits: Limits) -> Iterator[Finding]:
    try:
        if limits.wait_replicas:
            server.call("WAIT", 0, 1).answer()
        if limits.max_lag:
            server.call("INFO", "replication").answer()
            if not tells_how_far_replicas_are(read_info(server, "replication")):
                text = "they could not be watched: the server does not tell how far they are (INFO replication)"
                yield Finding("replicas", Verdict.REFUSED, text)
    except Refused as refusal:
        yield Finding("replicas", Verdict.REFUSED, f"they could not be watched: {refusal}")


def _of_the_data(deployment: Deployment, plan: Plan, *, warns_of_nothing: bool) -> Iterator[Finding]:
    try:
        samples = [sampling.take(deployment, server, plan) for server in deployment.primaries]
    except (Refused, Answered) as refusal:
        text = f"not checked, nor eviction, blocked, targets: {refusal}"
        yield Finding("memory", Verdict.WARNING, text)
        return
    could_be = {rule for sample in samples for rule in sample.could_create(plan, WAITED_ON)}
    created = [rule for rule in plan if rule in could_be]
    # A plan of one rule cannot be cut into fewer.
    fewer = ", or take fewer rules at once" if len(plan) > 1 else ""
    nodes = []
    for server in deployment.primaries:
        memory = memory_and_eviction(server, samples, fewer)
        nodes.append((server.place, [*memory, _saves(server), *_blocked(server, created)]))
    yield from _together(nodes)
    yield from _targets(deployment, plan, samples, warns_of_nothing=warns_of_nothing)
    if deployment.slots:
        yield from _crowding(plan)


def _targets(
    deployment: Deployment, plan: Plan, samples: list[sampling.Sample], *, warns_of_nothing: bool
) -> Iterator[Finding]:
    if any(sample.has_sources for sample in samples) or not warns_of_nothing:
        present, sampled = sum(sample.present for sample in samples), sum(len(sample.keys) for sample in samples)
        if sampled:
            yield Finding("targets", Verdict.OK, f"{present:,} of {sampled:,} sources sampled have one already")
        elif not any(sample.refused for sample in samples):
            yield Finding("targets", Verdict.OK, "no source of a rule's type is in the sample")
        yield from _never_written(samples)
    else:
        yield _nothing_found(deployment, plan, samples)


def _nothing_found(deployment: Deployment, plan: Plan, samples: list[sampling.Sample]) -> Finding:
    databases = read_database_sizes(deployment.primaries)
    if all(sample.complete.issuperset(plan) for sample in samples):
        others = sum((sample.other_types for sample in samples), Counter[str]())
        return Finding("targets", Verdict.WARNING, emptiness.nothing_found(plan, others, databases), empty=True)
    counts = {
        "KEYS": sum(sample.scanned for sample in samples),
        "NAMES OF RULES": sum(len(some_of(rule.source_names or (), sampling.ENOUGH)) for rule in plan),
    }
    looked_at = " AND ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    text = (
        f"NO KEY OF ANY RULE AMONG THE {looked_at} LOOKED AT; a dry run looks at all of them."
        f"{emptiness.keys_by_database(databases)}{emptiness.taken_literally(plan)}"
    )
    return Finding("targets", Verdict.WARNING, text)


def _never_written(samples: list[sampling.Sample]) -> Iterator[Finding]:
    """Warn of keys that would fail because of their names."""
    refused = [outcome for sample in samples for outcome in sample.refused]
    reasons = Counter(str(outcome.reason) for outcome in refused)
    for reason, count in sorted(reasons.items()):
        first = next(outcome for outcome in refused if outcome.reason == reason)
        text = (
            f"{count:,} of the sources sampled would fail ({first.text}); the first of them would be left out by "
            f"--except '{escaped(first.source)}'"
        )
        yield Finding("targets", Verdict.WARNING, text)


def _crowding(plan: Plan) -> Iterator[Finding]:
    """Warn of rules that would put all their targets into one slot."""
    for rule in plan:
        targets = [rule.target.filled(value) for value in ANY_NAMES]
        slots = {key_slot(target) for target in targets}
        if rule.source.varies and len(slots) == 1:
            text = (
                f"all targets of {rule} have the same hash tag, so that they come into slot {slots.pop()}: one node "
                "will hold them all"
            )
            yield Finding("targets", Verdict.WARNING, text)


def _saves(server: Connection) -> Finding:
    facts = read_info(server, "persistence")
    if not facts:
        return Finding("saves", Verdict.WARNING, "this user may not ask whether they succeed (INFO)")
    if not any(name in facts for name in _SAVES):
        return Finding("saves", Verdict.WARNING, "the server does not tell whether they succeed (INFO)")
    failing = [name.removesuffix("_status").replace("_", " ") for name in _SAVES if facts.get(name, "ok") != "ok"]
    if failing:
        text = f"the {', '.join(failing)} failed: what is copied might not outlive a restart. Mend that first"
        return Finding("saves", Verdict.REFUSED, text)
    return Finding("saves", Verdict.OK, "the last ones did not fail")


def _blocked(server: Connection, rules: list[Rule]) -> Iterator[Finding]:
    if not rules:
        yield Finding("blocked", Verdict.OK, "no list, sorted set or stream would be created")
    for database in dict.fromkeys(rule.database for rule in rules):
        yield _blocked_in(server, database, [rule for rule in rules if rule.database == database])


def _blocked_in(server: Connection, database: int | None, rules: list[Rule]) -> Finding:
    """Find clients that wait in the database of targets; None is the one that the connection has selected."""
    where = "this database" if database is None else f"database {database}"
    wanted = emptiness.a_few([rule.targets_text for rule in rules])
    try:
        number = _field(server.call("CLIENT", "INFO").answer(), "db") if database is None else str(database)
        clients = server.call("CLIENT", "LIST").answer()
    except (Refused, Answered):
        clients = None
    if not isinstance(clients, bytes):
        text = f"this user may not ask whether clients wait (CLIENT LIST): see that none waits on {wanted}"
        return Finding("blocked", Verdict.WARNING, text)
    if not clients or not all(_field(line, "flags") and _field(line, "cmd") for line in clients.splitlines()):
        text = f"the server does not tell whether clients wait (CLIENT LIST): see that none waits on {wanted}"
        return Finding("blocked", Verdict.WARNING, text)
    waiting = [
        f"{_field(line, 'name') or 'unnamed'} at {_field(line, 'addr')} in {_field(line, 'cmd').upper()}"
        for line in clients.splitlines()
        if "b" in _field(line, "flags")
        and (not number or _field(line, "db") in (number, ""))
        and _WAITING_COMMANDS.match(_field(line, "cmd"))
    ]
    if not waiting:
        return Finding("blocked", Verdict.OK, f"no client waits in {where}, where {wanted} could be created")
    shown = ", ".join(waiting[:3]) + (f" and {len(waiting) - 3} more" if len(waiting) > 3 else "")  # noqa: PLR2004
    text = (
        f"clients wait in {where}: {shown}. The server does not tell on which name: one that waits on {wanted} "
        "would be handed a list, sorted set or stream that is copied there, and a job would run twice. Stop them, or "
        "make sure that none does, then --ignore-check blocked (a rule of type hash copies none of these)"
    )
    return Finding("blocked", Verdict.REFUSED, text)


def _field(line: Any, name: str) -> str:
    match = re.search(rf"(?:^| ){name}=(\S*)".encode(), line) if isinstance(line, bytes) else None
    return printable(match[1]) if match else ""
