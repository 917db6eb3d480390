"""What docs/security.md grants to a follow, and to a cut-over, is enough, and what lacks is named before it begins."""

from __future__ import annotations

from typing import Any

import pytest

import luamigrate
from luamigrate import Wish
from luamigrate.cli.embedded import free_port
from tests.clusters import wait_until
from tests.cutting import CuttingOver
from tests.following import Following
from tests.instances import start
from tests.preflight.test_acl import MANY, Server, everywhere, granted, rules_under

FLAG, NEW = b"app:names", b"step"
FLIPS = {"follow --flip": True, "follow --flip --no-freeze": False}
"""Whether writes are frozen."""
NEEDED_BEFORE = ("+watch", "+unwatch", "+multi", "+exec", "+exists", "+pexpire", "+hset", "+type", "+copy", "+unlink")
"""Of the line for a run: what each follow that cuts over is refused without."""
WHERE_OLDER = frozenset(("+hello", "%R~luamigrate:follow*", "%R~luamigrate:cutover*"))
"""What a server grants to everybody, or to those who may do more."""


def write(server: Server) -> None:
    """Write sources of all types of the built-in plan, one of them big."""
    client: Any = server.client
    client.flushall()
    for number in range(6):
        client.hset(f"job:{number}", "a", "1")
    client.hset("job:big", mapping={f"field{number}": f"value{number}" * 8 for number in range(MANY)})
    client.sadd("jobs:active", "a", "b")
    client.zadd("jobs:pending", {"a": 1, "b": 2})
    client.pexpire("job:3", 10**8)
    if server.has_field_expiries:
        client.execute_command("HPEXPIRE", "job:1", 10**8, "FIELDS", 1, "a")


def change(server: Server, names: str) -> None:
    """Change something of each type, and delete something."""
    client: Any = server.client
    client.hset(f"{names}:1", "b", names)
    client.delete(f"{names}:2")
    client.hset(f"{names}:2", "b", names)
    client.delete(f"{names}:5")
    client.sadd(f"{names}s:active", names)
    client.zadd(f"{names}s:pending", {names: 1})


def careful(server: Server, rules: list[str]) -> str:
    """Make a user with these rules, and return his URL."""
    everywhere(server, "ACL", "SETUSER", "careful", "reset", "on", ">secret", *rules)
    return server.url_for("careful", "secret")


def cutting_over(url: str, *, freezes: bool) -> CuttingOver:
    """Return a follow of the built-in plan that can cut over, and copies what is big in chunks."""
    limits = luamigrate.Limits(max_pause=0.1)
    return CuttingOver(
        url, luamigrate.BUILT_IN, flag=FLAG, value=NEW, freezes=freezes, quiet_seconds=0.1, limits=limits, attempts=5
    )


@pytest.mark.parametrize("heading", FLIPS)
def test_what_the_document_grants_is_enough_to_cut_over_and_go_back(server: Server, heading: str) -> None:
    """And once more there, and to finish: no record of a flip is left behind."""
    write(server)
    follow = cutting_over(careful(server, granted(server, heading)), freezes=FLIPS[heading])
    with follow:
        follow.wait_until_in_step()
        for wish, names in ((Wish.CUTOVER, "job"), (Wish.BACK, "step"), (Wish.CUTOVER, "job")):
            change(server, names)
            follow.cut_over(wish)
        change(server, "step")
        follow.wait_until(lambda now: now.in_step and bool(server.client.hexists("job:1", "b")))
        assert not follow.ask(Wish.FINISH)
        follow.join(20)
    assert (follow.error, follow.summary.exit_code) == (None, 0)
    assert server.client.get(FLAG) == NEW
    assert not [*server.client.scan_iter("luamigrate:cutover*")]


def test_what_the_document_grants_is_enough_to_follow(server: Server) -> None:
    """Big keys included, and without anything that only a cut-over needs."""
    write(server)
    limits = luamigrate.Limits(max_pause=0.1)
    with Following(careful(server, granted(server, "follow")), luamigrate.BUILT_IN, limits=limits) as follow:
        follow.wait_until_in_step()
        change(server, "job")
        follow.wait_until(lambda now: now.in_step and now.removed > 0)
    assert (follow.error, follow.summary.exit_code) == (None, 0)


@pytest.mark.single_server("the replicas of a cluster are another test's")
@pytest.mark.parametrize("more", [[], ["+wait"]])
def test_a_flip_waits_for_a_replica_where_the_user_may_wait(server_name: str, more: list[str]) -> None:
    """Without that it flips all the same, and says that nobody knows whether a replica has it."""
    port = str(free_port())
    with (
        start(server_name, "--port", port, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0") as primary,
        start(server_name, "--replicaof", "127.0.0.1", port),
    ):
        write(primary)
        wait_until(lambda: primary.client.wait(1, 100) > 0)
        follow = cutting_over(careful(primary, [*granted(primary, "follow --flip"), *more]), freezes=True)
        with follow:
            follow.wait_until_in_step()
            follow.cut_over()
            steps = "\n".join(follow.now.steps)
    assert ("no replica has confirmed the flip (permissions: " in steps) == (not more), steps


@pytest.mark.parametrize("heading", FLIPS)
def test_what_lacks_is_named_before_anything_is_written(server: Server, heading: str) -> None:
    """Whatever is taken away of what a follow, a flip or the way back needs: one line says what."""
    write(server)
    rules, before = granted(server, heading), server.digest()
    own = {*rules_under(server, "follow"), *rules_under(server, heading), *NEEDED_BEFORE}
    for lacking in [rule for rule in rules if rule in own - WHERE_OLDER]:
        follow = cutting_over(careful(server, [rule for rule in rules if rule != lacking]), freezes=FLIPS[heading])
        follow.start()
        follow.join(20)
        told = str(follow.error).lower()
        assert isinstance(follow.error, luamigrate.Refused), (lacking, follow.error)
        assert "\n" not in told, told
        assert any(name in told for name in spelled_in(server, lacking)), (lacking, told)
        assert server.digest() == before, lacking


def spelled_in(server: Server, rule: str) -> list[str]:
    """Return what stands for a rule in the line that names it."""
    name = rule.lstrip("+~&%R").removeprefix("~")
    told = [name, "channel"] if rule.startswith("&") else [name]
    # That server names no subcommands of others.
    return [*told, name.partition("|")[0]] if server.version < (7, 0) else told
