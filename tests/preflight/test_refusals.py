"""Servers that refuse commands in scripts, as managed services do: what is said, and what remains.

The scripts run on real servers, behind a few lines that refuse what the service would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from luamigrate.scripts import library
from tests.conftest import luamigrate, run
from tests.instances import Instance, read_value
from tests.liar import Lie, encoded, lying
from tests.migration.test_run import fill
from tests.scripts.test_lua import vectors

NOT_ALLOWED = "ERR This Redis command is not allowed from script"
UNKNOWN = "ERR unknown command `%s`, with args beginning with:"
UNDECLARED = "ERR Script attempted to access keys that do not exist in KEYS"
KEPT_BACK = """
local redis = (function(real, declared)
  for _, key in ipairs(KEYS) do declared[key] = true end
  local function refusal(name, first, second)
    %s
  end
  return setmetatable({
    pcall = function(...)
      local text = refusal(...)
      if text then return { err = text } end
      return real.pcall(...)
    end,
    call = function(...)
      local text = refusal(...)
      if text then error({ err = text }) end
      return real.call(...)
    end,
  }, { __index = real })
end)(redis, {})
"""
STARTS = [("check",), ("run",), ("run", "--dry-run")]

Keep = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def kept_back(monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Return how to have every script refused what a piece of Lua returns a text for."""

    @contextmanager
    def keep(condition: str) -> Iterator[None]:
        original = library.source

        def source(name: str, directory: Path | None = None) -> str:
            return KEPT_BACK % condition + original(name, directory)

        library.digest.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(library, "source", source)
            yield
        library.digest.cache_clear()

    return keep


def refusing(*commands: str, text: str = NOT_ALLOWED) -> str:
    """Return Lua that refuses these commands."""
    names = " or ".join(f"name == '{command}'" for command in commands)
    return f"if {names} then return '{text}' end"


@pytest.mark.parametrize("text", [NOT_ALLOWED, UNKNOWN % "COPY", "ERR go away"])
@pytest.mark.single_server("keys across slots are not copied by COPY")
def test_a_command_that_scripts_need_and_are_refused_is_named(server: Instance, kept_back: Keep, text: str) -> None:
    """Exit 4 by the check, the run and the dry run, with the server's error text and what the command is needed for."""
    fill(server.client, jobs=3)
    digest = server.digest()
    with kept_back(refusing("COPY", text=text)):
        for command in STARTS:
            result = luamigrate(*command, url=server.url)
            assert result.code == 4, result
            said = result.out if command == ("check",) else result.err
            assert any(
                "scripts" in line and "COPY" in line and "to copy" in line and text.partition(",")[0] in line
                for line in said.splitlines()
            ), said
    assert server.digest() == digest


@pytest.mark.parametrize("command", ["TYPE", "PTTL", "UNLINK", "HGETALL", "SDIFF", "ZRANGE"])
def test_no_other_command_is_taken_for_permitted_either(server: Instance, kept_back: Keep, command: str) -> None:
    """Whatever the server says in the place of what is expected is a no."""
    fill(server.client, jobs=3)
    with kept_back(refusing(command)):
        result = luamigrate("check", "--json", url=server.url)
    assert result.code == 4
    (refused,) = [check for check in result.document["checks"] if check["verdict"] == "refused"]
    assert refused["name"] == "scripts"
    assert command in refused["text"]
    assert NOT_ALLOWED in refused["text"]


@pytest.mark.cluster
def test_a_cluster_that_refuses_undeclared_keys_is_refused(server: Instance, kept_back: Keep) -> None:
    """Batches name keys of many slots, which cannot be declared: exit 4 with the server's error text."""
    fill(server.client, jobs=3)
    refusal = f"if name ~= 'INFO' and not declared[name == 'MEMORY' and second or first] then return '{UNDECLARED}' end"
    with kept_back(refusal):
        for command in STARTS:
            result = luamigrate(*command, url=server.url)
            assert result.code == 4
            assert UNDECLARED in result.out + result.err


@pytest.mark.single_server("in a cluster the names of a batch cannot be declared")
def test_a_server_that_wants_all_keys_declared_is_served(server: Instance, kept_back: Keep) -> None:
    """Every script declares what it touches, the one that tries permissions too."""
    fill(server.client, jobs=3)
    refusal = (
        "if name ~= 'INFO' and name ~= 'TIME' and not declared[(name == 'MEMORY' or name == 'OBJECT' or "
        f"name == 'XINFO') and second or first] then return '{UNDECLARED}' end"
    )
    with kept_back(refusal):
        assert luamigrate("check", url=server.url).code == 0
        result = run(server, "--json")
    assert (result.code, result.totals["copied"]) == (0, 7)


ONES = [("MEMORY",), ("DUMP",), ("OBJECT",), ("HVALS",)]


@pytest.mark.parametrize("commands", [*ONES, ("MEMORY", "DUMP", "OBJECT", "HVALS")])
@pytest.mark.single_server("across slots, payloads are what is copied")
def test_what_only_spares_work_is_done_without(server: Instance, kept_back: Keep, commands: tuple[str, ...]) -> None:
    """All types are copied, compared and taken back all the same, and the check says what is missing."""
    fill(server.client, jobs=30)
    server.client.hset("job:large", mapping={"a": "x" * 100, "b": "y"})
    server.client.rpush("job:list", *"abc")
    server.client.set("job:string", "x")
    server.client.xadd("job:stream", {"a": "1"})
    rules = ("--map", "job:*=step:*", "--json")
    options = (*rules, "--settle", "0")
    with kept_back(refusing(*commands)):
        found = luamigrate("check", *rules, url=server.url)
        assert found.code == 0
        (text,) = [check["text"] for check in found.document["checks"] if check["name"] == "scripts"]
        assert text.endswith(", ".join(commands))
        copied = luamigrate("run", *options, url=server.url)
        assert (copied.code, copied.totals["copied"]) == (0, copied.totals["found"])
        server.client.hset("step:1", "another", "1")
        server.client.hdel("step:2", "status")
        server.client.xadd("step:stream", {"a": "1"})
        server.client.hset("step:large", "b", "z")
        compared = luamigrate("verify", *options, url=server.url)
        words = {word: count for word, count in compared.totals.items() if word not in ("found", "same", "ignored")}
        assert words == {"differs": 3, "partial": 1}
        assert luamigrate("rollback", "--yes", *options, url=server.url).totals["kept"] == 4


@pytest.mark.parametrize("kind", ["hash", "set", "zset", "list", "string", "stream"])
@pytest.mark.single_server("across slots, a key is weighed as it is read")
def test_large_keys_are_found_where_memory_is_refused(server: Instance, kept_back: Keep, kind: str) -> None:
    """A few of their elements are weighed instead: they still go in chunks, or are called too big."""
    client: Any = server.client
    text = "x" * 500
    for number in range(40):
        match kind:
            case "hash":
                client.hset("job:1", mapping={f"{number}-{each}": text for each in range(50)})
            case "set":
                client.sadd("job:1", *(f"{text}{number}-{each}" for each in range(50)))
            case "zset":
                client.zadd("job:1", {f"{text}{number}-{each}": each for each in range(50)})
            case "list":
                client.rpush("job:1", *[text] * 50)
            case "string":
                client.append("job:1", text * 50)
            case _:
                client.xadd("job:1", {f"{each}": text for each in range(50)})
    with kept_back(refusing("MEMORY")):
        result = luamigrate("run", "--map", "job:*=step:*", "--max-pause", "1", "--verbose", url=server.url)
    if kind == "stream":
        assert result.code == 1
        assert "too-big" in result.out
    else:
        assert result.code == 0, result.out
        assert "job:1 is big and goes in chunks" in result.out
        assert read_value(client, b"step:1") == read_value(client, b"job:1")


@pytest.mark.parametrize("refused", [("DUMP",), ("DUMP", "HGETALL", "HKEYS", "HVALS")])
def test_failed_means_not_written(server: Instance, kept_back: Keep, refused: tuple[str, ...]) -> None:
    """Where a fresh copy cannot be compared it is deleted in the same script, and a later run copies it.

    Where another comparison is possible, nothing fails.
    """
    for number in range(5):
        server.client.hset(f"job:{number}", mapping={"a": "x" * 100, "b": "y"})
    before = sorted(server.client.keys("*"))
    options = ("--map", "job:*=step:*", "--json", "--ignore-check", "scripts", "--settle", "0")
    with kept_back(refusing(*refused)):
        result = luamigrate("run", *options, url=server.url)
    if refused == ("DUMP",) and server.mode == "standalone":
        assert (result.code, result.totals["copied"]) == (0, 5)
        return
    assert (result.code, result.totals["failed"]) == (1, 5)
    assert sorted(server.client.keys("*")) == before
    assert luamigrate("run", *options, url=server.url).totals["copied"] == 5


@pytest.mark.parametrize("refused", ["LRANGE", "DUMP"])
def test_a_copy_that_cannot_be_read_is_deleted_again(server: Instance, kept_back: Keep, refused: str) -> None:
    """Only the target cannot be: in one slot it may be the items, across two the payload."""
    server.client.rpush("job:1", "a", "b")
    before = server.client.keys("*")
    lie = f"if (name == '{refused}' or name == 'DUMP') and first == 'step:1' then return 'ERR no' end"
    with kept_back(lie):
        options = ("--map", "job:*=step:*", "--json", "--ignore-check", "scripts", "--settle", "0")
        result = luamigrate("run", *options, url=server.url)
    if refused == "DUMP" and server.mode == "standalone":
        assert result.totals["copied"] == 1
        return
    assert result.totals["failed"] == 1
    assert server.client.keys("*") == before


@pytest.mark.cluster
def test_a_target_whose_source_cannot_be_read_again_is_deleted(server: Instance, kept_back: Keep) -> None:
    """It has been made of a source of which nobody knows any more whether it has changed: failed means not written."""
    server.client.hset("job:1", "a", "1")
    # What is read for the first time is asked for its payload; read again, it is given the one that it had.
    with kept_back("if name == 'DUMP' and first == 'job:1' and ARGV[#ARGV] ~= 'payload' then return 'ERR no' end"):
        options = ("--map", "job:*=step:*", "--json", "--ignore-check", "scripts", "--settle", "0")
        result = luamigrate("run", *options, url=server.url)
    assert (result.code, result.totals["failed"]) == (1, 1)
    assert server.client.keys("*") == [b"job:1"]


def test_a_vector_set_is_migrated_like_any_other_key(server: Instance) -> None:
    """Check, dry run, run, verify and rollback agree on it, in one slot and across two."""
    vectors(server, "old:vec", 20)
    server.client.pexpire("old:vec", 10**8)
    options = ("--map", "old:*=new:*", "--json")
    assert luamigrate("check", *options, url=server.url).code == 0
    assert luamigrate("run", "--dry-run", *options, url=server.url).totals["missing"] == 1
    assert run(server, *options).totals["copied"] == 1
    verified = luamigrate("verify", *options, url=server.url)
    assert (verified.code, verified.totals["same"]) == (0, 1)
    assert run(server, *options).totals["same"] == 1
    returned = luamigrate("rollback", "--yes", *options, url=server.url)
    assert (returned.code, returned.totals["removed"]) == (0, 1)
    assert server.client.keys("*") == [b"old:vec"]


@pytest.mark.single_server("a liar stands before one server")
@pytest.mark.parametrize(
    ("command", "reply", "named"),
    [
        ((b"SCRIPT",), "ERR unknown command `SCRIPT`, with args beginning with: `LOAD`", "SCRIPT LOAD"),
        ((b"SCRIPT",), "ERR command is not available", "SCRIPT LOAD"),
        ((b"EVALSHA", b"EVALSHA_RO"), "ERR unknown command 'evalsha'", "EVALSHA"),
        ((b"EVALSHA", b"EVALSHA_RO"), "ERR bad lua script: script keys must be KEYS[n]", "EVALSHA"),
        ((b"EVALSHA", b"EVALSHA_RO"), "NOSCRIPT No matching script. Please use EVAL.", "forgets each script"),
        ((b"SCAN",), "ERR command is disabled", "SCAN"),
    ],
)
def test_what_is_refused_altogether_is_named(
    server: Instance, command: tuple[bytes, ...], reply: str, named: str
) -> None:
    """Exit 4 by the check `scripts`, which says what is needed and why."""
    fill(server.client, jobs=3)

    def liar(sent: list[bytes]) -> Lie | None:
        return Lie(encoded(Exception(reply))) if sent[0].upper() in command else None

    with lying(server.url.removeprefix("unix://"), liar) as url:
        for given in STARTS:
            result = luamigrate(*given, url=url)
            assert result.code == 4, result
            said = result.out if given == ("check",) else result.err
            assert any("scripts" in line and named in line for line in said.splitlines()), said


@pytest.mark.single_server("a liar stands before one server")
@pytest.mark.parametrize("reply", ["NOPROTO unsupported protocol version", "ERR unknown command 'HELLO'", "ERR no"])
def test_a_server_that_refuses_hello_is_asked_by_info(server: Instance, reply: str) -> None:
    """It tells product, version, mode and role there as well: the check and the run find nothing amiss."""
    fill(server.client, jobs=3)

    def liar(sent: list[bytes]) -> Lie | None:
        return Lie(encoded(Exception(reply))) if sent[0] == b"HELLO" else None

    with lying(server.url.removeprefix("unix://"), liar) as url:
        checked = luamigrate("check", "--json", url=url)
        assert checked.code == 0, checked.out
        assert checked.document["server"]["product"] in ("redis", "valkey")
        assert checked.document["checks"][0]["text"] == "a primary"
        assert luamigrate("run", "--json", url=url).totals["copied"] == 7


@pytest.mark.single_server("a liar stands before one server")
@pytest.mark.parametrize("closing", ["HELLO", "INFO", "CLIENT"])
def test_a_proxy_that_hangs_up_at_a_command_is_told_by_that_command(any_server: Instance, closing: str) -> None:
    """Exit 1 with the command in the line; a port for TLS is thought of only where nothing has been answered yet."""

    def liar(sent: list[bytes]) -> Lie | None:
        return Lie(b"", hangs_up=True) if sent[0] == closing.encode() else None

    with lying(any_server.url.removeprefix("unix://"), liar) as url:
        result = luamigrate("check", "--patience", "0", url=url)
    assert result.code == 1
    advice = result.err.partition("proxy that does not know ")[2]
    assert closing in advice
    assert ("TLS" in result.err) == (closing != "INFO")


@pytest.mark.single_server("a liar stands before one server")
def test_a_command_at_which_each_connection_ends_is_named(any_server: Instance) -> None:
    """Also in the middle: what is waited for in vain says at which command."""

    def liar(sent: list[bytes]) -> Lie | None:
        return Lie(b"", hangs_up=True) if sent[0].startswith(b"EVALSHA") else None

    with lying(any_server.url.removeprefix("unix://"), liar) as url:
        result = luamigrate("run", "--patience", "0.2", url=url)
    assert result.code == 1
    assert "EVALSHA" in result.err


@pytest.mark.single_server("a liar stands before one server")
def test_a_summary_that_ends_early_says_nothing_of_rules_that_had_not_begun(any_server: Instance) -> None:
    """It does not claim that no key matches them."""
    fill(any_server.client, jobs=3)

    def liar(sent: list[bytes]) -> Lie | None:
        return Lie(b"", hangs_up=True) if sent[:1] == [b"EVALSHA"] and b"job:1" in sent else None

    with lying(any_server.url.removeprefix("unix://"), liar) as url:
        result = luamigrate("run", "--patience", "0.2", url=url)
    assert result.code == 1
    assert "there is no such key" not in result.out
    assert "jobs:pending -> steps:pending: nothing found before it ended" in result.out
