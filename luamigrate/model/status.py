"""Status words, reasons, what differs between two keys, and what a check finds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar


class Command(StrEnum):
    """The commands that have a summary."""

    RUN = "run"
    VERIFY = "verify"
    ROLLBACK = "rollback"
    CHECK = "check"
    FOLLOW = "follow"


class Word(StrEnum):
    """The state of one (source, target) pair: the same words in Lua, Python, JSON and the docs."""

    COPIED = "copied"
    """The target was absent; it now equals the source."""
    FILLED = "filled"
    """The target was `partial`; what it lacked was added, and it now equals the source."""
    REMOVED = "removed"
    """The target equalled its source and was deleted."""
    SAME = "same"
    """The target existed and equals the source, expiry included."""
    EXISTS = "exists"
    """The target existed and was not compared."""
    EXPIRY = "expiry"
    """Equal in value, but the key or a field expires at another time."""
    PARTIAL = "partial"
    """The target existed, agrees with the source in all it has, and lacks some of it."""
    DIFFERS = "differs"
    """The target existed and contradicts the source, or is of another type."""
    KEPT = "kept"
    """The target was not deleted, because something would be lost with it."""
    MISSING = "missing"
    """There is no target."""
    GONE = "gone"
    """The source vanished between SCAN and the script."""
    FAILED = "failed"
    """The server refused this key, or our limits did."""
    IGNORED = "ignored"
    """Matches the pattern, but is not of the rule's type; not in the sum."""
    EXTRA = "extra"
    """A target that has no source; not in the sum."""
    FOREIGN = "foreign"
    """A target that somebody else has written while it was followed; not in the sum."""
    STRAGGLER = "straggler"
    """An old name that somebody else has written after the cut-over; not in the sum."""

    def __init__(self, word: str) -> None:
        self.reply = word.encode()
        """The word as a script answers it."""


SKIPPED = (Word.SAME, Word.EXISTS, Word.EXPIRY, Word.PARTIAL, Word.DIFFERS)
"""Words of a run for targets that were there before."""

BESIDE = (Word.EXTRA, Word.FOREIGN, Word.STRAGGLER)
"""Words that are not in the sum of what was found."""

_UNFINISHED = frozenset((Word.EXPIRY, Word.PARTIAL, Word.DIFFERS, Word.KEPT, Word.EXTRA))


def unfinished(command: Command, *, dry_run: bool = False) -> frozenset[Word]:
    """Return the words that need somebody's attention once the command has ended."""
    missing_is_fine = dry_run or command is Command.ROLLBACK
    return _UNFINISHED if missing_is_fine else _UNFINISHED | {Word.MISSING}


class Reason(StrEnum):
    """Why a key `failed`."""

    OOM = "oom"
    """The server is at its memory limit."""
    NOPERM = "noperm"
    """The user may not do this to this key."""
    BUSY = "busy"
    """Somebody wrote to a large key each time it was being copied or compared."""
    TOO_BIG = "too-big"
    """It would block the server for longer than allowed, and cannot go in chunks."""
    VERSION = "version"
    """Its payload comes from a server of another version, which the target's cannot read."""
    CHAIN = "chain"
    """Its target is itself a source of the plan."""
    AMBIGUOUS = "ambiguous"
    """Its target does not lead back to exactly this source."""
    RESERVED = "reserved"
    """Its target would come under the names that are the tool's own."""
    OTHER = "other"
    """Anything else: see the server's error text."""


# Some versions put the code first, others inside the text; in a script, Redis 6.2 and 7.0 give a sentence without
# the code NOPERM.
_REASONS = (
    (Reason.OOM, re.compile(r"\bOOM\b")),
    (Reason.BUSY, re.compile(r"^busy: ")),
    (Reason.TOO_BIG, re.compile(r"^too-big: ")),
    *((reason, re.compile(f"^{reason}: ")) for reason in (Reason.CHAIN, Reason.AMBIGUOUS, Reason.RESERVED)),
    (Reason.VERSION, re.compile(r"DUMP payload version or checksum are wrong|Bad data format")),
    (
        Reason.NOPERM,
        re.compile(r"\bNOPERM\b|ACL failure|[Nn]o permissions to|can't (run this command|access at least)"),
    ),
)


def reason_for(text: str) -> Reason:
    """Name the reason for the server's error text."""
    return next((reason for reason, pattern in _REASONS if pattern.search(text)), Reason.OTHER)


def without_reason(reason: Reason, text: str) -> str:
    """Return an error text that may begin with its reason, for a place where that stands already."""
    return text.removeprefix(f"{reason}: ")


Note = int | str | None | list["Note"]
Notes = Mapping[str, Note]
"""What differs between a source and its target, by name: see the head of lua/lib/diff.lua."""


@dataclass(frozen=True, slots=True)
class MissingNames:
    """The target only lacks names: a recheck adds them if it finds the same ones missing."""

    digest: bytes
    """Digest of the sorted names."""

    @property
    def argument(self) -> bytes:
        """The argument for a script."""
        return self.digest


@dataclass(frozen=True, slots=True)
class TargetAbsent:
    """A target that was there is gone: a recheck makes it again only if it finds none either."""

    argument: ClassVar[bytes] = b"missing"


@dataclass(frozen=True, slots=True)
class LargePartial:
    """A large target only lacks names: a recheck compares the names themselves."""

    argument: ClassVar[bytes] = b"big"


Lacking = MissingNames | TargetAbsent | LargePartial
"""What was found missing, on which a recheck may act."""


def lacking_from(digest: bytes) -> Lacking | None:
    """Read what a script answers as a digest; empty for nothing."""
    if digest == TargetAbsent.argument:
        return TargetAbsent()
    return MissingNames(digest) if digest else None


@dataclass(frozen=True, slots=True)
class KeyOutcome:
    """The result for one pair."""

    source: bytes
    target: bytes
    word: Word
    text: str = ""
    """The error text for `failed`, the type for `ignored`, the reason for `kept`."""
    sizes: tuple[int, int] | None = None
    """Sizes of source and target, in a dry run of run and where they say what differs."""
    notes: Notes = field(default_factory=dict)
    """What differs between source and target."""
    lacking: Lacking | None = None
    """What a recheck may add, where the target could be filled or made again."""
    fillable: bool = False
    """Whether a run would fill it, as a dry run found."""
    clean: bool = True
    """Whether the pair needs nobody's attention."""
    was: Word | None = None
    """How it stood before, where it is clean again: only while a comparison goes on."""
    moment: int | None = None
    """When that was found, in milliseconds since 1970 by the server's clock: only while a comparison goes on."""

    @property
    def is_news(self) -> bool:
        """Whether somebody should be told of it: it is not clean, or is clean again."""
        return not self.clean or self.was is not None

    @property
    def reason(self) -> Reason | None:
        """Why the key `failed`."""
        return reason_for(self.text) if self.word is Word.FAILED else None


class Stage(StrEnum):
    """The stage of the work that a batch comes from."""

    SCAN = "scan"
    RECHECK = "again"
    """What was not clean is checked a second time; the value is the one that callers know."""
    EXTRA = "extra"
    """The search for targets without a source."""
    COVER = "cover"
    """The search for keys that no rule takes."""


class Verdict(StrEnum):
    """The verdict of a check."""

    OK = "ok"
    WARNING = "warning"
    """No reason to refuse, or the check was not permitted to ask, or it is ignored."""
    REFUSED = "refused"


CHECKS = (
    *(
        "role",
        "permissions",
        "scripts",
        "databases",
        "big-keys",
        "version",
        "writes",
        "memory",
        "eviction",
        "saves",
        "blocked",
    ),
    *("targets", "replicas", "cover", "follow"),
)
"""Names of checks and guards: what --ignore-check takes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check."""

    name: str
    verdict: Verdict
    text: str
    empty: bool = False
    """Whether it found that no key matches any rule, so that a run would end with exit code 3."""

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"
