"""What programs are told: the JSON document of a command, and the lines of the report."""

from __future__ import annotations

from typing import Any

from luamigrate.model.coverage import Coverage
from luamigrate.model.drift import Drift
from luamigrate.model.errors import printable
from luamigrate.model.following import Followed
from luamigrate.model.patterns import escaped
from luamigrate.model.rules import Rule
from luamigrate.model.status import KeyOutcome, Word
from luamigrate.model.summary import Summary, Tally
from luamigrate.server.deployment import Deployment


def document(summary: Summary, server: Deployment | None) -> dict[str, Any]:
    """Return the JSON document of a command."""
    totals = summary.totals
    content: dict[str, Any] = {
        "command": summary.command,
        "dry_run": summary.dry_run,
        "validated": summary.validated,
        "interrupted": summary.interrupted,
        "exit_code": int(summary.exit_code),
        "server": _server_document(server),
        "rules": [_rule_document(rule, tally) for rule, tally in summary.by_rule.items()],
        "totals": totals_document(totals),
        "duration_seconds": round(summary.seconds, 3),
        "slowest_script_ms": round(summary.slowest_script_seconds * 1000, 3),
        "warnings": summary.warnings,
        "error": str(summary.error) if summary.error else None,
    }
    if summary.by_shard:
        content["shards"] = [
            {"node": node, "found": tally.found, **dict(tally.words), "ignored": tally.ignored.total()}
            for node, tally in sorted(summary.by_shard.items())
        ]
    if summary.findings:
        content["checks"] = [
            {"name": finding.name, "verdict": finding.verdict, "text": finding.text} for finding in summary.findings
        ]
    if totals.fillable:
        content["totals"]["fillable"] = totals.fillable
    if summary.coverage:
        content["cover"] = [_coverage_document(coverage) for coverage in summary.coverage.values()]
    if summary.sample:
        content["sample"] = summary.sample
    if summary.followed:
        content["followed"] = followed_document(summary.followed)
    if summary.drift:
        content["drift"] = _drift_document(summary.drift)
    return content


def key_document(rule: Rule, key: KeyOutcome) -> dict[str, Any]:
    """Return the line of the report that tells about a key of a rule."""
    content: dict[str, Any] = {"source": printable(key.source), "target": printable(key.target), "word": key.word}
    if (pattern := escaped(key.source)) != content["source"]:
        content |= {"source_pattern": pattern}
    if rule.database is not None:
        content |= {"database": rule.database}
    if key.word is Word.FAILED:
        content |= {"reason": key.reason, "text": key.text}
    if key.word is Word.KEPT:
        content |= {"reason": key.text}
    if key.word is Word.IGNORED:
        content |= {"type": key.text}
    if key.word in (Word.FOREIGN, Word.STRAGGLER):
        content |= {"text": key.text}
    if key.sizes:
        content |= {"source_size": key.sizes[0], "target_size": key.sizes[1]}
    if key.fillable:
        content |= {"fillable": True}
    return content | dict(key.notes) | _news_of(key)


def _news_of(key: KeyOutcome) -> dict[str, Any]:
    """Return what is only told while a comparison goes on."""
    if key.moment is None:
        return {}
    return {"time_ms": key.moment} | ({"was": key.was} if key.was else {})


def totals_document(totals: Tally) -> dict[str, Any]:
    """Return the counts of all rules together, for programs."""
    return {"found": totals.found, **dict(totals.words), "ignored": totals.ignored.total()}


def followed_document(followed: Followed) -> dict[str, Any]:
    """Return the figures of a follow, for programs."""
    lag = followed.lag
    return {
        "phase": followed.phase,
        "in_step": followed.in_step,
        "was_in_step": followed.was_in_step,
        "dirty": followed.dirty,
        "in_flight": followed.in_flight,
        "told": followed.told,
        "copies": followed.copies,
        "removed": followed.removed,
        "rescans": sum(followed.rescans.values()),
        "rescan_reasons": {str(why): count for why, count in followed.rescans.items()},
        "foreign": followed.foreign,
        "foreign_seen": followed.foreign_seen,
        "failed": followed.failed,
        "extra": followed.extra,
        "lag_ms": {"now": lag.now, "p50": lag.p50, "p99": lag.p99, "max": lag.worst},
        "side": followed.side,
        "attempts": followed.attempts,
        "steps": list(followed.steps),
        "stragglers": followed.stragglers,
        "freeze_ms": followed.freeze_ms,
        "waiting_for": followed.waiting_for,
    }


def _drift_document(drift: Drift) -> dict[str, Any]:
    return {
        "complete": drift.is_complete,
        "comparisons": drift.comparisons,
        "rescans": sum(drift.rescans.values()),
        "rescan_reasons": {str(why): count for why, count in drift.rescans.items()},
        "told": drift.told,
        "waiting": drift.waiting,
        "compared": drift.compared,
        "unequal": dict(drift.unequal),
        "remaining": drift.remaining,
        "drifted": drift.drifted,
        "healed": drift.healed,
    }


def _coverage_document(coverage: Coverage) -> dict[str, Any]:
    return {
        "pattern": str(coverage.pattern),
        "keys": coverage.seen,
        "untaken": coverage.untaken,
        "types": dict(coverage.types),
        "names": [printable(name) for name in coverage.names],
        "left_out": coverage.left_out,
        "targets": coverage.targets,
    }


def _server_document(server: Deployment | None) -> dict[str, Any] | None:
    if server is None:
        return None
    who = server.identity
    return {
        "url": server.url,
        "product": who.product,
        "version": who.version,
        "mode": who.mode,
        "nodes": len(server.primaries),
    }


def _rule_document(rule: Rule, tally: Tally) -> dict[str, Any]:
    content: dict[str, Any] = {
        "source": str(rule.source),
        "target": str(rule.target),
        "type": rule.type,
        "found": tally.found,
        **dict(tally.words),
        "ignored": dict(tally.ignored),
        "failed_reasons": dict(tally.reasons),
    }
    content |= {"database": rule.database} if rule.database is not None else {}
    if rule.is_table and rule.source_names:
        content |= {"names": len(rule.source_names), "absent": tally.absent}
    content |= {"failed_texts": dict(tally.texts)} if tally.texts else {}
    return content | ({"kept_reasons": dict(tally.kept)} if tally.kept else {})
