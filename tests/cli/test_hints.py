"""What the last lines say of rules and names that found nothing is true, and helps."""

from __future__ import annotations

import pytest

from tests.cli.test_bad_input import assert_one_line
from tests.conftest import luamigrate
from tests.instances import Instance


@pytest.mark.parametrize(
    "options",
    [
        ("--map", "x:*=z:*", "--map", "y:*=q:*", "--except", "x:1*"),
        ("--first-match", "--map", "x:1<a>=w:<a>", "--map", "x:*=z:*", "--map", "y:*=q:*"),
    ],
)
def test_a_rule_without_keys_that_matches_some_is_told_so(any_server: Instance, options: tuple[str, ...]) -> None:
    """An except left the keys out, or an earlier rule took them; one that really matches nothing is told as before."""
    any_server.client.mset({"x:12": "1", "y:1": "1"})
    out = luamigrate("run", *options, "--map", "none:*=n:*", url=any_server.url).out
    assert "NO KEY IS LEFT FOR 'x:*': none matches, or an except leaves them out" in out
    assert "NO KEY MATCHES 'x:*'" not in out
    assert "  x:* -> z:*: no key is left for it" in out
    assert "NO KEY MATCHES 'none:*'. Is that right?" in out


@pytest.mark.parametrize("command", ["run", "check"])
def test_where_nothing_is_found_excepts_are_named_among_the_reasons(any_server: Instance, command: str) -> None:
    """Beside the server, the database and the patterns; without excepts there is no word of them."""
    any_server.client.set("x:1", "1")
    result = luamigrate(command, "--map", "x:*=z:*", "--except", "x:1*", url=any_server.url)
    assert result.code == 3
    assert "and the patterns, those of excepts too, the right ones?" in result.out
    assert "except" not in luamigrate(command, "--map", "q:*=z:*", url=any_server.url).out


def test_no_line_of_a_quiet_command_names_an_option_that_contradicts_it(any_server: Instance) -> None:
    """It says that the one goes instead of the other."""
    any_server.client.set("job:counter", "1")
    any_server.client.hset("job:1", "a", "1")
    hint = "--verbose instead of --quiet names them"
    assert hint in luamigrate("run", "--quiet", url=any_server.url).out
    assert "--quiet" not in luamigrate("run", url=any_server.url).out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("run", "--cover", "job*"), "run has no --cover: it belongs to verify and check"),
        (("run", "--cover=job*"), "run has no --cover: it belongs to verify and check"),
        (("check", "--yes"), "check has no --yes: it belongs to rollback"),
        (("verify", "--no-dry-run"), "verify has no --no-dry-run: it belongs to run and rollback"),
    ],
)
def test_an_option_of_another_command_is_said_to_be_one(options: tuple[str, ...], said: str) -> None:
    """One with a similar name is no help; what no command takes is told as before."""
    assert_one_line(luamigrate(*options), 2, said)
    assert_one_line(luamigrate(options[0], "--covers"), 2, "No such option: --covers")
