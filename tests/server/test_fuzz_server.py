"""A server that answers nonsense is noticed: nothing is written because of it, and no success is claimed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from luamigrate.scripts import library
from tests.conftest import Result, luamigrate
from tests.instances import Instance, assert_kept, snapshot
from tests.liar import Lie, encoded, lying
from tests.project.test_fuzz import drawn, is_safe

pytestmark = pytest.mark.single_server("a liar stands before one server")

lied = settings(drawn, phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False)
"""Without shrinking: it would take minutes where many things are wrong."""

RULE = ("--map", "job:*=step:*", "--settle", "0", "--patience", "0")
MOST = 300
"""Lies; who has not found out by then never will, and is told the truth so that it ends."""
SCRIPTS = {"run": "copy", "verify": "compare", "rollback": "remove"}
STAGING = b"luamigrate:staging:"
"""Keys that begin so end by themselves."""

Meant = Callable[[list[bytes]], bool]


@dataclass
class Telling:
    """Answers each of the commands that are `meant` with one lie."""

    meant: Meant
    lie: Lie
    most: int = MOST
    told: int = 0

    def __call__(self, command: list[bytes]) -> Lie | None:
        """Return the lie, or None for the truth."""
        if self.told >= self.most or not self.meant(command):
            return None
        self.told += 1
        return self.lie


def scan(command: list[bytes]) -> bool:
    """Tell whether it is a SCAN with a pattern, not one of the sample."""
    return command[0] == b"SCAN" and b"MATCH" in command


def any_scan(command: list[bytes]) -> bool:
    """Tell whether it is a SCAN, of the work or of the sample."""
    return command[0] == b"SCAN"


def script(name: str) -> Meant:
    """Return what recognises the calls of a script."""
    digest = library.digest(name).encode()
    return lambda command: command[0] in (b"EVALSHA", b"EVALSHA_RO") and command[1] == digest


def command(*words: bytes) -> Meant:
    """Return a test for commands that begin so."""
    return lambda command: command[: len(words)] == list(words)


def fill(server: Instance) -> None:
    """Write four sources, a target, and keys that no rule concerns."""
    server.client.flushall()
    for number in range(3):
        server.client.hset(f"job:{number}", "a", number)
    server.client.copy("job:2", "step:2")
    server.client.rpush("job:3", "a")
    server.client.set("other", "1")
    server.client.set("r", "1")


def tell(server: Instance, telling: Telling, *options: str, verb: str = "run", writes: bool = False) -> Result:
    """Run a command against a liar, and assert all that is promised whatever a server says.

    What `writes` may have made the targets of sources that are there, and nothing else.
    """
    before = snapshot(server.client)
    options = (*options, "--yes") if verb == "rollback" else options
    with pytest.MonkeyPatch.context() as patch, lying(server.url.removeprefix("unix://"), telling) as url:
        # Every lie is answered whole, or ends the connection: nothing has to be waited for.
        patch.setattr("luamigrate.server.connection.ANSWER_SECONDS", 2)
        result = luamigrate(verb, *RULE, "--json", *options, url=url)
    after = {key: value for key, value in snapshot(server.client).items() if not key.startswith(STAGING)}
    assert is_safe(result.out + result.err)
    assert "no answer from the server" not in result.err
    assert result.code == result.document["exit_code"]
    assert telling.told < telling.most, "it goes on and on"
    assert_kept(before, after)
    made = {key.replace(b"step:", b"job:", 1) for key in after.keys() - before.keys()}
    assert made <= (before.keys() if writes else set())
    return result


# Anything that can be said

CODES = (
    "ERR",
    "NOSCRIPT",
    "NOPERM",
    "OOM",
    "BUSY",
    "LOADING",
    "READONLY",
    "MISCONF",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOAUTH",
)
errors = st.tuples(
    st.sampled_from((*CODES, "MASTERDOWN", "CROSSSLOT", "WRONGPASS", "EXECABORT", "UNKILLABLE", "")),
    st.sampled_from(("", " ", " rubbish", " \x1b[2J", " \udcff", " unknown command", " max number of clients reached")),
).map("".join)
integers = st.one_of(st.integers(-5, 5), st.sampled_from((-(2**63), 2**63 - 1)))
blobs = st.one_of(
    st.binary(max_size=8), st.sampled_from((b"0", b"-1", b"job:1", b"\x1b[2J\r\n", b"9" * 30, b"9" * 5000))
)
flat = st.one_of(st.none(), integers, st.booleans(), st.floats(), blobs, errors.map(Exception))
nonsense = st.recursive(
    flat,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(blobs, inner, max_size=2)),
    max_leaves=6,
)
CUT_SHORT = (b"", b"*", b"*2\r\n", b"*2\r\n$1\r\n0\r\n*1\r\n$9\r\njob", b"$5\r\nab", b":1", b"+OK", b"-ERR")
NO_REPLY = (
    *(b"\x00\xff\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*-7\r\n", b"$-7\r\n", b":x\r\n", b"*x\r\n", b"#x\r\n"),
    *(b"(1x\r\n", b"*1\r\n" * 30 + b":1\r\n", b":999999999999999999999999\r\n", b"$99999999999999999999\r\n"),
)
broken = st.one_of(
    # An end follows, or nobody could tell them from an answer that takes its time.
    st.sampled_from((*CUT_SHORT, *NO_REPLY)).map(lambda content: Lie(content, hangs_up=True))
)


def lies(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Lie]:
    """Draw values as they are sent, and sometimes what is no reply at all."""
    told = values.map(encoded).map(Lie)
    return st.one_of(told, told, told, broken)


def spoilt(right: list[Any]) -> st.SearchStrategy[list[Any]]:
    """Draw a list like this in which something is wrong: nonsense in a place, one too many or one missing."""
    places = range(len(right))
    return st.one_of(
        st.tuples(st.sampled_from(places), nonsense).map(lambda it: [*right[: it[0]], it[1], *right[it[0] + 1 :]]),
        nonsense.map(lambda more: [*right, more]),
        st.sampled_from(places).map(lambda place: right[:place] + right[place + 1 :]),
    )


cursors = st.sampled_from((b"0", b"-5", b"abc", b"", b" 1", b"1_0", b"0x1", b"9" * 30, b"9" * 5000, "٣".encode(), 0, 5))
found = st.lists(st.one_of(st.sampled_from((b"other", b"jo", b"", b"step:1", b"job:1")), flat), min_size=1, max_size=3)


def could_be_scanned(reply: Any) -> bool:
    """Tell whether a real server could answer this to SCAN."""
    match reply:
        case [bytes() as cursor, list() as keys]:
            names = all(isinstance(key, bytes) and key.startswith(b"job:") for key in keys)
            return names and cursor.isdigit() and len(cursor) <= len(str(2**64))
        case _:
            return False


scanned = st.one_of(nonsense, spoilt([b"0", [b"job:1"]]), st.tuples(cursors, found).map(list)).filter(
    lambda reply: not could_be_scanned(reply)
)


@settings(lied, max_examples=40)
@given(lie=lies(scanned), meant=st.sampled_from((scan, any_scan)), verb=st.sampled_from(sorted(SCRIPTS)))
def test_nonsense_in_place_of_keys_is_noticed(any_server: Instance, lie: Lie, meant: Meant, verb: str) -> None:
    """Exit 1 or 4; no key is written, least of all one that no rule names."""
    fill(any_server)
    assert tell(any_server, Telling(meant, lie), verb=verb).code in (1, 4)


WORDS = (
    *(
        b"rubbish",
        b"",
        b" same",
        b"Same",
        b"same\x00",
        "same\u200b".encode(),
        b"\xff",
        b"\x1b[2J",
        b"extra",
        b"extra x",
    ),
    *(b"big", b"big hash", b"big hash x", b"big hash -1", b"big hash " + b"9" * 5000, b"moved", b"moved on", b"failed"),
    *(b"failed \x1b[2J", b"failed READONLY", b"failed MISCONF", b"ignored \x1b[2J", b"differs", b"partial \x1b[2J"),
)
NOTES = (
    *("missing", "missing_names", "additional", "contradicting", "contradicting_names", "expiring_apart", "digest"),
    *("source_type", "target_type", "source_size", "target_size", "source_ttl_ms", "target_ttl_ms", "reason", "text"),
    *("first_difference", "differing", "word", "source", "\x1b[2J"),
)
notes = st.dictionaries(st.sampled_from(NOTES).map(str.encode), st.one_of(integers, blobs, nonsense), max_size=4)
noted = st.tuples(st.sampled_from((b"differs", b"partial", b"expiry", b"failed", b"kept", b"extra", b"rubbish")), notes)
answers = st.one_of(
    st.sampled_from(WORDS), noted.map(lambda it: [it[0], *(text for pair in it[1].items() for text in pair)])
)
answered = st.one_of(
    nonsense,
    spoilt([b"rubbish", 0]),
    st.tuples(st.lists(st.one_of(answers, nonsense), max_size=5), nonsense).map(lambda it: [*it[0], it[1]]),
    st.tuples(answers, st.integers(1, 4), integers).map(lambda it: [it[0]] * it[1] + [it[2]]),
    st.tuples(answers, st.integers(1, 4), integers).map(lambda it: [it[0]] * it[1] + [it[2]]),
)


@pytest.mark.parametrize("verb", SCRIPTS)
@settings(lied, max_examples=50)
@given(lie=lies(answered))
@example(lie=Lie(encoded([[b"differs", b"missing", b"x"], 0])))
def test_nonsense_in_place_of_words_is_no_success(any_server: Instance, verb: str, lie: Lie) -> None:
    """Whatever stands there for what a script says of the keys: nothing is written, and the code is not 0."""
    fill(any_server)
    assert tell(any_server, Telling(script(SCRIPTS[verb]), lie), "--verbose", verb=verb).code in (1, 3, 4)


FACTS = ("used_memory", "maxmemory", "total_system_memory", "used_memory_rss", "evicted_keys", "run_id", "db0", "role")
TEXTS = (
    "maxmemory_policy",
    "rdb_last_bgsave_status",
    "aof_last_write_status",
    "slave0",
    "master_repl_offset",
    "\x1b[2J",
)
facts = st.lists(
    st.tuples(
        st.sampled_from((*FACTS, *TEXTS)),
        st.sampled_from(
            ("", "x", "-1", "1.5", "1e3", "9" * 5000, "\x1b[2J", "keys=", "keys=x", "keys=1,", "ip=\x1b,port=1,")
        ),
    ).map(":".join),
    max_size=4,
).map(lambda lines: "\r\n".join(lines).encode())
clients = st.sampled_from(
    (b"", b"\x1b[2J", b"id=1 addr=\x1b[2J name=\x1b[31m flags=b db=0 cmd=blpop", b"flags=b db= cmd=blpop")
)
ASIDE = {
    (b"HELLO",): nonsense,
    (b"INFO",): st.one_of(facts, nonsense),
    (b"DBSIZE",): nonsense,
    (b"TYPE",): nonsense,
    (b"MEMORY",): nonsense,
    (b"SCRIPT",): nonsense,
    (b"PING",): nonsense,
    (b"CLIENT", b"LIST"): st.one_of(clients, nonsense),
    (b"CLIENT", b"INFO"): st.one_of(clients, nonsense),
}


@pytest.mark.parametrize("words", ASIDE)
@settings(lied, max_examples=12)
@given(data=st.data(), empty=st.booleans())
def test_nonsense_aside_breaks_nothing(
    any_server: Instance, words: tuple[bytes, ...], data: st.DataObject, empty: bool
) -> None:
    """Whatever a server says of itself: no traceback, no control character, and only what the rules name is written."""
    fill(any_server)
    if empty:
        any_server.client.flushall()
    tell(any_server, Telling(command(*words), data.draw(lies(ASIDE[words]))), writes=True)
