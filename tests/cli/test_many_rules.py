"""Plans of very many rules: what is printed stays short, and tells of what is not clean."""

from __future__ import annotations

from pathlib import Path

from luamigrate.cli.summary_messages import MOST_RULES
from tests.conftest import luamigrate
from tests.instances import Instance

MANY = 400


def plan_file(folder: Path) -> str:
    """Write a plan of many single names."""
    file = folder / "plan.toml"
    file.write_text("".join(f"[[rule]]\nsource = 'old:{n}'\ntarget = 'new:{n}'\n" for n in range(MANY)))
    return str(file)


def test_very_many_rules_are_told_in_a_few_lines(server: Instance, tmp_path: Path) -> None:
    """Those with something to look at have their lines; the others are added up."""
    plan = plan_file(tmp_path)
    server.client.mset({f"old:{number}": number for number in range(0, MANY, 2)})
    server.client.set("new:6", "another")
    result = luamigrate("run", "--plan", plan, url=server.url)
    assert result.code == 3
    assert len(result.out.splitlines()) < 40
    assert "  old:6 -> new:6: 1 differs" in result.out
    assert f"  {MANY - 1} more rules: 199 copied; for 200 of them there is no key" in result.out
    again = luamigrate("verify", "--plan", plan, "--json", url=server.url)
    assert len(again.document["rules"]) == MANY
    assert "more rules: 199 same" in again.err


def test_of_very_many_odd_rules_the_first_have_lines(server: Instance, tmp_path: Path) -> None:
    """No more than other plans have."""
    server.client.mset({f"old:{number}": number for number in range(MANY)})
    server.client.mset({f"new:{number}": "another" for number in range(MANY)})
    result = luamigrate("verify", "--plan", plan_file(tmp_path), url=server.url)
    assert result.code == 3
    assert sum(" -> " in line and ": 1 differs" in line for line in result.out.splitlines()) >= MOST_RULES
    assert f"{MANY - MOST_RULES} more rules: {MANY - MOST_RULES} differs" in result.out


def test_names_that_could_be_meant_otherwise_are_not_all_listed(server: Instance, tmp_path: Path) -> None:
    """Where no key matches any of very many rules."""
    result = luamigrate("check", "--plan", plan_file(tmp_path), url=server.url)
    assert result.code == 3
    assert "'old:19', …" in result.out
    assert "old:20'" not in result.out
