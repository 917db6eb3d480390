"""What the checks say to a user who may not ask everything, or could not copy everything."""

from __future__ import annotations

import pytest

from tests.conftest import luamigrate
from tests.instances import Instance
from tests.migration.test_run import HASHES, fill
from tests.preflight.test_checks import KEYS, RUN, commands, migrated, user
from tests.preflight.test_preflight import checks, limited, need

UNKNOWN = {"memory", "eviction", "saves", "blocked", "big-keys", "follow"}
"""Checks that a user with only the needed permissions cannot make."""
LARGE = [
    *("exists", "renamenx", "persist", "pexpire", "pexpireat", "watch", "unwatch", "hlen", "hmget", "zcard", "zmscore"),
    "evalsha_ro",
    *("scard", "sscan", "smismember", "zadd", "hset", "sadd", "multi", "exec"),
]
"""What a user who may copy the built-in plan needs beside that for large keys, with the staging keys."""


def test_a_user_who_may_not_ask_is_warned_and_can_run(server: Instance) -> None:
    """Without INFO and CLIENT LIST, each check that cannot be made is named."""
    fill(server.client, jobs=5)
    with user(server, commands(server, RUN), KEYS) as url:
        found = checks(server, url=url)
        assert {name for name, (verdict, _) in found.items() if verdict == "warning"} == UNKNOWN
        assert "steps:pending" in found["blocked"][1]
        result = luamigrate("run", "--json", url=url)
    assert migrated(server, result)
    assert {text.partition(":")[0] for text in result.document["warnings"]} == UNKNOWN


def test_a_user_who_may_not_ask_how_many_keys_there_are_gets_no_false_estimate(any_server: Instance) -> None:
    """Without DBSIZE, what a sampling stands for is not known: the check warns, and the run can be started."""
    fill(any_server.client, jobs=4000)
    with (
        user(any_server, [*commands(any_server, RUN), "info"], KEYS) as url,
        limited(any_server, need(any_server) / 2),
    ):
        assert checks(any_server, *HASHES, url=url)["memory"][0] == "warning"


@pytest.mark.parametrize("lacking", ["", "watch", "persist", "hmget", "luamigrate:staging:*"])
def test_a_user_who_could_not_copy_large_keys_is_warned(server: Instance, lacking: str) -> None:
    """By the name of what is missing; small ones are copied all the same."""
    fill(server.client, jobs=5)
    allowed = [name for name in [*RUN, *LARGE] if name != lacking]
    allowed = [name for name in commands(server, allowed) if name != lacking]
    allowed += ["hpexpireat"] if server.has_field_expiries else []
    keys = [key for key in [*KEYS, "luamigrate:staging:*"] if key != lacking]
    with user(server, allowed, keys) as url:
        verdict, text = checks(server, url=url)["big-keys"]
        if not lacking:
            assert verdict == "ok"
        else:
            assert (verdict, "noperm" in text) == ("warning", True)
            assert lacking in text.lower() or "key" in text
        assert migrated(server, luamigrate("run", url=url))


def test_a_user_who_may_do_everything_is_warned_of_no_command(any_server: Instance) -> None:
    """Whatever types the rule has keys of, those of newer versions included."""
    any_server.client.set("a:1", "1")
    finding = checks(any_server, "--map", "a:*=b:*")["scripts"]
    assert finding == ("ok", "are kept by the server, and may call what they need")
