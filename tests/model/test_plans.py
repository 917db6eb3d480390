"""Plans: whatever is accepted never writes what it should not; refusals name what helps."""

from __future__ import annotations

import itertools
import re
import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luamigrate import Pattern, Plan, UsageError, plan
from luamigrate.model.errors import Exit
from luamigrate.model.plan_files import plan_from_maps
from luamigrate.model.rules import Rule
from tests.model.test_patterns import patterns

NAMES = [bytes(letters) for length in range(7) for letters in itertools.product(b"ab", repeat=length)]


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[tuple[bytes, bytes]], dict[str, Any]]:
    """Draw rules whose sides have the same parts, with excepts, and with overlaps allowed or not."""
    rules = []
    for _ in range(draw(st.integers(1, 3))):
        source = draw(patterns)
        parts = draw(st.permutations(re.findall(rb"\*|<\d>", source)))
        between = draw(st.lists(st.sampled_from([b"a", b"b", b"ab"]), min_size=len(parts), max_size=len(parts)))
        beginning = draw(st.sampled_from([b"", b"a", b"b", b"c", b"ba"]))
        target = beginning + b"".join(part + more for part, more in zip(parts, between, strict=True))
        rules.append((source, target or b"c"))
    options = {"excepts": draw(st.lists(patterns, max_size=2)), "first_match": draw(st.booleans())}
    return rules, options


def written(accepted: Plan) -> dict[bytes, bytes]:
    """Return what a run would write for all short names: sources by targets; assert that each is taken once."""
    made: dict[bytes, bytes] = {}
    taken: set[bytes] = set()
    for rule in accepted:
        is_source = accepted.choosing_sources(rule) or (lambda _: True)
        sources = [name for name in NAMES if rule.source.matches(name) and is_source(name)]
        assert taken.isdisjoint(sources)
        taken.update(sources)
        pairs, refused = accepted.pairs(rule, sources)
        assert sorted([*pairs.sources, *(key.source for key in refused)]) == sorted(sources)
        for source, target in zip(pairs.sources, pairs.targets, strict=True):
            assert made.setdefault(target, source) == source
    assert taken == {name for name in NAMES if accepted.rule_for(name)}
    return made


@settings(max_examples=400)
@given(plans())
def test_no_accepted_plan_gives_two_sources_one_target_or_feeds_on_its_copies(
    drawn: tuple[list[tuple[bytes, bytes]], dict[str, Any]],
) -> None:
    """Whatever names there are; and exactly what is written is a target of the plan."""
    rules, options = drawn
    try:
        accepted = plan([(*rule, "any") for rule in rules], **options)
    except UsageError:
        return
    made = written(accepted)
    for target, source in made.items():
        assert accepted.rule_for(target) is None
        origin = accepted.origin(target)
        assert origin is not None
        assert origin[1] == source
    for name in NAMES:
        origin = accepted.origin(name)
        if origin and len(origin[1]) <= len(NAMES[-1]):
            assert made[name] == origin[1]
        for rule in accepted:
            is_target = accepted.choosing_targets(rule)
            if rule.target.matches(name) and (not is_target or is_target(name)):
                assert origin == (rule, rule.source_of(name))


@settings(max_examples=400)
@given(plans())
def test_what_a_refusal_names_helps(drawn: tuple[list[tuple[bytes, bytes]], dict[str, Any]]) -> None:
    """The same refusal does not come again once its options are added."""
    rules, options = drawn
    before = refusal_of(rules, options)
    words = shlex.split(before.partition("; ")[2]) if "--except '" in before else []
    excepts = [words[index + 1].encode() for index, word in enumerate(words) if word == "--except"]
    more = options | {"excepts": [*options["excepts"], *excepts]}
    more |= {"first_match": True} if "--first-match" in before else {}
    if more != options:
        assert before.partition("; ")[0] != refusal_of(rules, more).partition("; ")[0]


def refusal_of(rules: list[tuple[bytes, bytes]], options: dict[str, Any]) -> str:
    """Return why a plan is refused; empty if it is not."""
    try:
        plan([(*rule, "any") for rule in rules], **options)
    except UsageError as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize(
    ("maps", "helps"),
    [
        (["*=app:*"], "--except 'app:*'"),
        (["app:*=*"], "--except 'app:app:*'"),
        (["x:x:*=x:*"], "--except 'x:x:x:*'"),
        (["a:*=a:b:*"], "--except 'a:b:*'"),
        (["t:<a>:<b>=t:x:<b>:<a>"], "--except 't:x:<b>:<a>'"),
        (["tenant:<t>:d=q:<t>:d", "tenant:<t>=p:<t>"], "--first-match"),
        (["a:*=c:*", "b:*=c:b:*"], "--except 'a:b:*'"),
        (["a\\**=a\\*b*"], r"--except 'a\*b*'"),
        (["x=s:1:2", "t:<a>:<b>=s:<b>:<a>"], "--except 't:2:1'"),
        (["t:<a>:<b>=t:<b>:<a>"], "no --except would avoid that"),
        (["job:*=step:*", "task:*=step:*"], "or each rule a run of its own"),
    ],
)
def test_a_refusal_names_the_option_that_helps(maps: list[str], helps: str) -> None:
    """Spelled out, so that it can be pasted."""
    with pytest.raises(UsageError, match=re.escape(helps)) as refusal:
        plan_from_maps(maps)
    assert refusal.value.exit_code is Exit.USAGE
    if helps.startswith("--except"):
        assert plan_from_maps(maps, excepts=shlex.split(helps)[1:])


@pytest.mark.parametrize(
    ("maps", "excepts", "reasons"),
    [
        (["t:<a>:<b>=s:<b>:<a>"], [], {b"t:a:b": "", b"t:a:b:c": "ambiguous"}),
        (["app:*=*"], ["app:app:*"], {b"app:x": "", b"app:luamigrate:x": "reserved"}),
        (["<a>:<b>=<b>:<a>"], ["c:*"], {b"a:c": "", b"a:b": "chain"}),
    ],
)
def test_what_patterns_cannot_decide_is_decided_for_each_key(
    maps: list[str], excepts: list[str], reasons: dict[bytes, str]
) -> None:
    """By one of three reasons."""
    accepted = plan_from_maps(maps, excepts=excepts)
    for name, reason in reasons.items():
        _, refused = accepted.pairs(accepted[0], [name])
        assert [key.reason for key in refused] == ([reason] if reason else [])


def test_a_plan_that_patterns_decide_asks_nothing_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the built-in plan's kind of rules no name is held against a pattern on its way to a pair."""
    accepted = plan([("a:*", "b:*", "any"), ("c", "d", "any")])
    monkeypatch.delattr(Plan, "rule_for")
    monkeypatch.delattr(Rule, "source_of")
    assert accepted.pairs(accepted[0], [b"a:1"])[0].targets == [b"b:1"]
    assert all(accepted.choosing_sources(rule) is accepted.choosing_targets(rule) is None for rule in accepted)


def test_ten_thousand_rules_are_not_compared_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name is looked up, so that the plan is read at once."""
    asked = itertools.count()
    ask = Pattern.overlaps
    monkeypatch.setattr(Pattern, "overlaps", lambda one, other: bool(next(asked) + 1) and ask(one, other))
    names = [(f"old:{number}{star}", f"new:{number}{star}", "any") for number in range(10_000) for star in ("", ":*")]
    assert len(plan(names)) == len(names)
    assert next(asked) < 10 * len(names)


def test_an_except_counts_only_for_names_that_a_rule_can_give() -> None:
    """One that only looks like the sources that lead to another rule's targets leaves the doubt."""
    accepted = plan_from_maps([":<y>:<x>=<y>:<x>", "aa*a=a*b"], excepts=["aa<y>:<x>a"])
    for rule, source in zip(accepted, (b":a:b", b"aa:a"), strict=True):
        assert rule.target_of(source) == b"a:b"
        _, refused = accepted.pairs(rule, [source])
        assert [key.reason for key in refused] == ["ambiguous"]


@pytest.mark.parametrize("maps", [["a:b:x=d", "a:*=c:*", "b:*=c:b:*"], ["x:*=z:*", "y:<a>=z:<a>"]])
def test_an_option_that_leaves_another_rule_no_source_is_not_named(maps: list[str]) -> None:
    """For with it the plan would be refused too; the name in which a star is empty is no source to speak of."""
    with pytest.raises(UsageError, match="no --except would avoid that"):
        plan_from_maps(maps, first_match=True)


@pytest.mark.parametrize(
    ("maps", "named", "helps"),
    [
        (["a:*=b:*", "a:x=c"], "rules 'a:*' -> 'b:*' and 'a:x' -> 'c': ", "put the narrower one first"),
        (["*=b*", "bar*=c*"], "rules '*' -> 'b*' and 'bar*' -> 'c*': ", "put the narrower one first"),
        (["a:*=b:*", "a:*=c:*"], "rules 'a:*' -> 'b:*' and 'a:*' -> 'c:*': ", "give each a run of its own"),
        (["a:<x>=b:<x>", "a:<y>=c:<y>"], "rules 'a:<x>' -> 'b:<x>' and ", "give each a run of its own"),
        (["a:=c", "a:<x>=b:<x>", "a:*=d:*"], "rules 'a:<x>' -> 'b:<x>' and 'a:*' -> ", "leave out one of the rules"),
    ],
)
def test_a_rule_that_could_never_get_a_key_is_refused(maps: list[str], named: str, helps: str) -> None:
    """Earlier rules take all of them; with an except in one of these, there may be some left."""
    with pytest.raises(UsageError) as refusal:
        plan_from_maps(maps, first_match=True)
    assert named in str(refusal.value)
    assert helps in str(refusal.value)


def test_a_rule_may_have_the_keys_that_an_earlier_one_leaves_out() -> None:
    """The except is that of the earlier rule alone; one for other names changes nothing."""
    wide, narrow = (b"a:*", b"b:*", "any"), Rule.parse(b"a:x", b"c", "any")
    assert len(Plan((Rule.parse(*wide, [b"a:x"]), narrow), first_match=True)) == 2
    with pytest.raises(UsageError, match="none is left for the second"):
        Plan((Rule.parse(*wide, [b"a:y"]), narrow), first_match=True)


@pytest.mark.parametrize("maps", [["a:*=b:*", "a:*=c:*"], ["a:<x>=b:<x>", "a:<y>=c:<y>"]])
def test_overlapping_allowed_is_no_advice_for_equal_sources(maps: list[str]) -> None:
    """For then the second rule would get no key."""
    with pytest.raises(UsageError, match="their sources are the same; leave out one of the rules"):
        plan_from_maps(maps)
