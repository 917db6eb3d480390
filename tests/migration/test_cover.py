"""Keys under a pattern that no rule takes: counted by type and named, so that none is left behind."""

from __future__ import annotations

from typing import Any

import pytest

from luamigrate import Summary, connect, plan, verify
from tests.conftest import luamigrate
from tests.instances import Instance

JOBS = ("--map", "job:*=step:*", "--type", "hash")


def fill(server: Instance) -> None:
    """Write keys that a rule takes, keys that none takes, and copies."""
    for number in range(250):
        server.client.hset(f"job:{number}", "a", "1")
        server.client.hset(f"step:{number}", "a", "1")
    server.client.set("job:counter", "1")
    for number in range(30):
        server.client.rpush(f"job-archive:{number:02}", "1")
    server.client.set("other", "1")


def covered(result: Any) -> Any:
    """Return what was found under the only pattern."""
    (found,) = result.document["cover"]
    return found


def test_keys_that_no_rule_takes_are_counted_and_named(server: Instance) -> None:
    """By type, the first ten by name; one of another type than its rule's is among them: exit code 3."""
    fill(server)
    result = luamigrate("verify", *JOBS, "--cover", "job*", "--json", url=server.url)
    assert result.code == 3
    found = covered(result)
    names = found.pop("names")
    types = {"list": 30, "string": 1}
    assert found == {"pattern": "job*", "keys": 281, "untaken": 31, "types": types, "left_out": 0, "targets": 0}
    assert len(set(names)) == 10
    assert all(name.startswith("job-archive:") or name == "job:counter" for name in names)
    assert "no rule takes 31 of the 281 keys under 'job*': 30 of type list, 1 of type string" in result.err
    assert names[0] in result.err


def test_what_rules_take_is_covered(server: Instance) -> None:
    """So is what an except leaves out, which is counted; copies under the pattern, and our own names, do not count."""
    fill(server)
    server.client.set("luamigrate:x", "1")
    rules = ("--map", "job:*=step:*", "--map", "job-archive:*=step-archive:*", "--except", "job-archive:1*")
    assert luamigrate("run", *rules, url=server.url).code == 0
    result = luamigrate("verify", *rules, "--cover", "job*", "--cover", "step*", "--json", url=server.url)
    assert result.code == 0
    jobs, steps = result.document["cover"]
    assert (jobs["keys"], jobs["untaken"], jobs["left_out"]) == (281, 0, 10)
    assert (steps["keys"], steps["untaken"], steps["left_out"], steps["targets"]) == (0, 0, 0, 271)
    assert "Covered: a rule takes 271 of the 281 keys under 'job*' (an except leaves out the other 10)." in result.err
    assert "Covered: there is no key under 'step*' but 271 targets of the plan." in result.err
    everything = covered(luamigrate("verify", *rules, "--cover", "*", "--json", url=server.url))
    assert (everything["untaken"], everything["names"]) == (1, ["other"])


@pytest.mark.parametrize(
    ("pattern", "excepted", "said"),
    [
        ("job:1*", "job:2*", "a rule takes each of the 111 keys under 'job:1*'"),
        ("job:17", "job:2*", "a rule takes the 1 key under 'job:17'"),
        ("job:1*", "job:1*", "an except leaves out each of the 111 keys under 'job:1*', and no rule takes any"),
        ("<a>:1<b>", "job:2*", "each of the 110 keys under '<a>:1<b>' (110 targets of the plan not counted)"),
        ("job:*", "job:1*", "no rule takes 1 of the 251 keys under 'job:*' (an except leaves out 111 more): 1 of type"),
    ],
)
def test_keys_that_an_except_leaves_out_are_not_said_to_be_taken(
    any_server: Instance, pattern: str, excepted: str, said: str
) -> None:
    """Nor are targets passed over in silence."""
    fill(any_server)
    for number in range(30):
        any_server.client.delete(f"job-archive:{number:02}")
    for command in ("check", "verify"):
        assert said in luamigrate(command, *JOBS, "--except", excepted, "--cover", pattern, url=any_server.url).out


def test_a_pattern_under_which_there_is_nothing_proves_nothing(server: Instance) -> None:
    """It may be a slip: exit code 3, with what is literal in it, unless that is allowed; the check warns."""
    fill(server)
    said = "NOTHING UNDER 'jbo?*': there is no such key. Is the pattern right? Only * and placeholders vary"
    checked = luamigrate("check", *JOBS, "--cover", "jbo?*", url=server.url)
    assert (checked.code, f"warning  cover        {said}" in checked.out) == (0, True)
    options = ("--map", "job:*=step:*", "--cover", "jbo?*")
    proof = luamigrate("verify", *options, url=server.url)
    assert proof.code == 3
    server.client.delete("job:counter")
    proof = luamigrate("verify", *options, url=server.url)
    assert (proof.code, said in proof.out) == (3, True)
    assert luamigrate("verify", *options, "--allow-empty", url=server.url).code == 0


def test_check_warns_of_keys_that_no_rule_takes(server: Instance) -> None:
    """And says so where there are none; a run could be started all the same."""
    fill(server)
    result = luamigrate("check", *JOBS, "--cover", "job*", url=server.url)
    assert result.code == 0
    assert "warning  cover        no rule takes 31 of the 281 keys under 'job*'" in result.out
    result = luamigrate("check", *JOBS, "--cover", "job:1*", "--cover", "nothing:*", "--json", url=server.url)
    found = {finding["text"]: finding["verdict"] for finding in result.document["checks"] if finding["name"] == "cover"}
    assert found == {
        "a rule takes each of the 111 keys under 'job:1*'": "ok",
        "NOTHING UNDER 'nothing:*': there is no such key. Is the pattern right?": "warning",
    }


def test_a_name_is_a_pattern_too(server: Instance) -> None:
    """Of the one key."""
    fill(server)
    found = covered(luamigrate("verify", *JOBS, "--cover", "other", "--json", url=server.url))
    assert (found["keys"], found["untaken"], found["names"]) == (1, 1, ["other"])
    found = covered(luamigrate("verify", *JOBS, "--cover", "not there", "--json", url=server.url))
    assert (found["keys"], found["untaken"]) == (0, 0)


@pytest.mark.parametrize("pattern", ["", "a:*:*", r"\d", "<a"])
def test_an_odd_pattern_is_a_usage_error(any_server: Instance, pattern: str) -> None:
    """Before a server is asked."""
    for command in ("check", "verify"):
        assert luamigrate(command, "--cover", pattern, url=any_server.url).code == 2


def test_python_gets_it_too(server: Instance) -> None:
    """In the batches, and added up in the summary."""
    fill(server)
    rules = plan([("job:*", "step:*", "hash")])
    summary = Summary(rules)
    with connect(server.url) as connection:
        for batch in verify(connection, rules, cover=["job-*"], settle=0):
            summary.add(batch)
    (found,) = summary.coverage.values()
    assert (found.seen, found.untaken) == (30, 30)
