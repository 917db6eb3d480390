"""What chance has found that once went wrong, as small as it gets: lies of a server, and URLs."""

from __future__ import annotations

from typing import Any

import pytest

from luamigrate import UsageError
from luamigrate.server.url import ServerUrl
from tests.instances import Instance
from tests.liar import Lie, encoded
from tests.project.test_fuzz import SECRET, assert_url_is_read
from tests.server.test_fuzz_server import Meant, Telling, any_scan, command, fill, scan, script, tell

pytestmark = pytest.mark.single_server("a liar stands before one server")


def case(name: str, meant: Meant, content: Any, *options: str, **how: Any) -> Any:
    """Return the parameters of a lie."""
    lie = content if isinstance(content, Lie) else Lie(encoded(content))
    return pytest.param(meant, lie, options, how.pop("verb", "run"), id=name)


COPY, COMPARE = script("copy"), script("compare")
FOUND_OUT = [
    case("scan of an integer", scan, 5),
    case("sample of nothing", any_scan, None),
    case("scan of three", scan, [b"0", [], []]),
    case("scan of an integer for a name", scan, [b"0", [5]]),
    case("cursor of letters", scan, [b"abc", []]),
    case("cursor below zero", scan, [b"-5", []]),
    case("cursor of 5,000 digits", scan, [b"9" * 5000, []]),
    case("cursor that is an integer", scan, [0, []]),
    case("name that does not match", scan, [b"0", [b"other"]]),
    case("name that is a target", scan, [b"0", [b"step:2"]]),
    case("moved, to no place", COPY, ValueError("MOVED x")),
    case("to be asked elsewhere, at no port", scan, ValueError("ASK 1 host:port")),
    case("map of lists", COPY, Lie(b"%1\r\n*0\r\n:1\r\n")),
    case("moved without a cluster", COPY, [b"moved", 0]),
    case("another type again and again", COPY, [b"big set 5", 0]),
    case("size of 5,000 digits", COPY, [b"big hash " + b"9" * 5000, 0]),
    case("sizes of 5,000 digits", COPY, [b"differs " + b"9" * 5000 + b" 1", 0]),
    case("number that is text", COMPARE, [[b"differs", b"missing", b"x"], 0], verb="verify"),
    case("number that is a list", COMPARE, [[b"differs", b"missing", [b"x"]], 0], verb="verify"),
    case("half of two types", COMPARE, [[b"differs", b"target_type", b"x"], 0], verb="verify"),
    case("half of two expiries", COMPARE, [[b"differs", b"source_ttl_ms", 5], 0], verb="verify"),
    case("copied by verify", COMPARE, [b"copied"] * 4 + [0], verb="verify"),
    case("removed by run", COPY, [b"removed"] * 4 + [0]),
    case("paired by run", COPY, [b"same", b"paired", b"paired", b"paired", 0]),
    case("lost each time", COPY, Lie(b"", hangs_up=True), "--patience", "0.1"),
    case("busy each time", COPY, ValueError("BUSY"), "--patience", "0.1"),
]


@pytest.mark.parametrize(("meant", "lie", "options", "verb"), FOUND_OUT)
def test_lies_found_by_chance_are_found_out(
    any_server: Instance, meant: Meant, lie: Lie, options: tuple[str, ...], verb: str
) -> None:
    """Each is no success, and nothing is written."""
    fill(any_server)
    assert tell(any_server, Telling(meant, lie), *options, verb=verb).code in (1, 3, 4)


ASIDE_ONCE = [
    case("memory that is no number", command(b"INFO"), b"used_memory:abc"),
    case("evictions that are no number", command(b"INFO"), b"evicted_keys:x"),
    case("maxmemory of 5,000 digits", command(b"INFO"), b"maxmemory:" + b"9" * 5000),
    case("offset that is no number", command(b"INFO"), b"master_repl_offset:x", "--max-lag", "1"),
    case("database that is no number", command(b"INFO"), b"db0:keys=x", "--map", "no:*=nowhere:*"),
    case("policy", command(b"INFO"), b"maxmemory_policy:\x1b[2J\r\nmaxmemory:1"),
    case("type that is none", command(b"TYPE"), None),
    case("list of clients that is none", command(b"CLIENT", b"LIST"), 5),
    case("client that is none", command(b"CLIENT", b"INFO"), 5),
    case(
        "name of a client",
        command(b"CLIENT", b"LIST"),
        b"addr=\x1b[2J name=\x1b[31m flags=b db=0 cmd=blpop",
    ),
]


@pytest.mark.parametrize(("meant", "lie", "options", "verb"), ASIDE_ONCE)
def test_lies_aside_found_by_chance_break_nothing(
    any_server: Instance, meant: Meant, lie: Lie, options: tuple[str, ...], verb: str
) -> None:
    """Each ends with a code, and without a control character."""
    fill(any_server)
    if "no:*=nowhere:*" in options:
        any_server.client.flushall()
    tell(any_server, Telling(meant, lie), *options, verb=verb, writes=True)


CHUNK: dict[str, Any] = {
    **dict.fromkeys(("visited", "largest", "microseconds"), 5),
    **dict.fromkeys(("missing", "contradicting", "expiring_apart", "expiries_differ", "outlives"), 0),
    **{f"{name}_names": [] for name in ("missing", "contradicting", "expiring_apart")},
    "position": b"0",
    "exact": 1,
    "lengths": [5, 5],
    "ttls": [-1, -1],
}
"""What chunk/compare.lua answers."""


def chunk(name: str, value: Any, *, more: Any = 0) -> Any:
    """Return the parameters of a chunk in which one thing is odd."""
    content = CHUNK | {name: value, "contradicting": more}
    flat = [part for key, each in content.items() for part in (key.encode(), each)]
    return pytest.param(Lie(encoded(flat)), id=f"{name} {value}")


@pytest.mark.parametrize(
    "lie",
    [
        chunk("lengths", [5]),
        chunk("lengths", [b"x", b"y"]),
        chunk("ttls", [5]),
        chunk("ttls", [None, None]),
        chunk("contradicting_names", [b"x"], more=1),
    ],
)
@pytest.mark.parametrize("verb", ["verify", "rollback"])
def test_lies_about_a_big_pair_are_found_out(any_server: Instance, lie: Lie, verb: str) -> None:
    """Each is no success, nothing is written and nothing removed."""
    any_server.client.flushall()
    any_server.client.rpush("job:0", *["x" * 500] * 400)
    any_server.client.copy("job:0", "step:0")
    assert tell(any_server, Telling(script("chunk/compare"), lie), "--max-pause", "0.5", verb=verb).code in (1, 3, 4)


def test_what_cannot_be_read_ends_the_connection(any_server: Instance) -> None:
    """Nobody knows where the next answer begins."""
    any_server.client.flushall()
    any_server.client.hset("job:0", mapping={str(number): "x" * 500 for number in range(400)})
    telling = Telling(command(b"PEXPIRE"), Lie(b"\x00\xff\r\n"))
    assert tell(any_server, telling, "--max-pause", "0.5").code == 1


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(f"sentinel://h/s/{'9' * 5000}"),
        pytest.param(
            f"sentinel://h/s?sentinel_password=a&{SECRET}",
        ),
    ],
)
def test_a_url_found_by_chance_is_read_or_a_usage_error(url: str) -> None:
    """What has gone wrong once."""
    assert_url_is_read(url)


def test_a_database_of_very_many_digits_is_not_database_0() -> None:
    """It is a usage error."""
    with pytest.raises(UsageError):
        ServerUrl.parse(f"redis://h/{'9' * 5000}")
