"""The checks `memory` and `eviction`: whether the copies fit, and what the server does when it is full."""

from __future__ import annotations

from collections.abc import Iterator

from luamigrate.model.limits import FULL
from luamigrate.model.status import Finding, Verdict
from luamigrate.preflight.sampling import Sample, needed_bytes, unknown_facts
from luamigrate.server.connection import Connection
from luamigrate.server.info import number, read_info


def memory_and_eviction(server: Connection, samples: list[Sample], fewer: str) -> Iterator[Finding]:
    """Yield both findings about a server, by samples of all servers.

    `fewer` is what to do beside giving the server more memory.
    """
    needed = needed_bytes(samples, server)
    facts = read_info(server, "memory")
    if needed is None:
        refused = unknown_facts(samples)
        untold = " and ".join(_UNTOLD[command] for command in refused)
        grants = " ".join(_GRANTS[command] for command in refused)
        text = f"what the copies need is not known: the server does not tell this user {untold}; grant {grants}"
        yield Finding("memory", Verdict.WARNING, text)
        yield _unknown_eviction(facts)
        return
    need = f"the copies need about {_bytes(needed)}, by a sample"
    used, limit = number(facts, "used_memory"), number(facts, "maxmemory")
    if used is None or limit is None:
        whose = "the server does not tell" if facts else "this user may not ask"
        text = f"{need}; {whose} how much there is (INFO): see to it yourself"
        yield Finding("memory", Verdict.WARNING, text)
        yield _unknown_eviction(facts)
        return
    policy = facts.get("maxmemory_policy")
    too_much = bool(limit and needed and used + needed > FULL * limit)
    there = f"{_bytes(used)} of {_bytes(limit)} maxmemory are used"
    if too_much and policy in (None, "noeviction"):
        yield Finding("memory", Verdict.REFUSED, f"{need}, and {there}: raise maxmemory{fewer}")
    else:
        room = f"{_bytes(max(0, limit - used))} of maxmemory are free" if limit else "there is no maxmemory"
        yield _machine(facts, needed, need, fewer) or Finding("memory", Verdict.OK, f"{need}; {room}")
    if too_much and policy is None:
        yield _unknown_eviction(facts)
    elif too_much and policy != "noeviction":
        text = (
            f"{need}, {there}, and this server evicts keys when it is full ({policy}): copies could push out "
            "their own sources. Make room for twice the data, or set maxmemory-policy to noeviction meanwhile"
        )
        yield Finding("eviction", Verdict.REFUSED, text)
    else:
        yield _NOTHING_EVICTED


_UNTOLD = {"DBSIZE": "how many keys there are (DBSIZE)", "MEMORY": "how big they are (MEMORY USAGE)"}
"""What is not known where a command is refused."""
_GRANTS = {"DBSIZE": "+dbsize", "MEMORY": "+memory|usage"}

_NOTHING_EVICTED = Finding("eviction", Verdict.OK, "nothing would be evicted")


def _machine(facts: dict[str, str], needed: float, need: str, fewer: str) -> Finding | None:
    """Refuse where the copies do not fit into the machine."""
    machine, resident = number(facts, "total_system_memory"), number(facts, "used_memory_rss")
    if not (machine and resident is not None and needed and resident + needed > FULL * machine):
        return None
    there = f"the server uses {_bytes(resident)} of the machine's {_bytes(machine)}"
    return Finding("memory", Verdict.REFUSED, f"{need}, and {there}: give it more{fewer}")


def _unknown_eviction(facts: dict[str, str]) -> Finding:
    """Tell what is known where it is not known how much room there is, or how much is needed."""
    policy, limit = facts.get("maxmemory_policy"), number(facts, "maxmemory")
    if not facts:
        text = "this user may not ask whether the server evicts keys when it is full (INFO): see that it does not"
    elif limit == 0 or policy == "noeviction":
        return _NOTHING_EVICTED
    elif policy is None:
        text = "the server does not tell whether it evicts keys when it is full (INFO): see that it does not"
    else:
        text = f"this server evicts keys when it is full ({policy}), and whether the copies fit is not known"
        return Finding("eviction", Verdict.REFUSED, text)
    return Finding("eviction", Verdict.WARNING, text)


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
