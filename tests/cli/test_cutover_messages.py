"""What people and programs are told of cut-overs: each step once, where it stands, and what to do at the end."""

from __future__ import annotations

import pytest

from luamigrate.cli import json_output, messages
from luamigrate.cli.follow_messages import follow_block, follow_lines
from luamigrate.cli.reporter import ConsoleReporter
from luamigrate.model.cutover import Side
from luamigrate.model.errors import Error, Exit, Refused
from luamigrate.model.following import Followed, Phase
from luamigrate.model.plans import BUILT_IN
from luamigrate.model.status import Command, KeyOutcome, Word
from luamigrate.model.summary import Batch, Summary, Tally

BEFORE = Followed(phase=Phase.FOLLOWING, in_step=True, was_in_step=True)
AFTER = Followed(
    phase=Phase.MIRRORING_BACK,
    in_step=True,
    was_in_step=True,
    side=Side.TARGETS,
    attempts=1,
    steps=("frozen", "flipped"),
    freeze_ms=3.5,
)
FINISHED = Followed(phase=Phase.FINISHED, was_in_step=True, side=Side.TARGETS, attempts=1)
STRAGGLER = KeyOutcome(b"job:1", b"step:1", Word.STRAGGLER, "written after the flip", clean=False)


def summary_of(followed: Followed, *, error: Error | None = None, interrupted: bool = False) -> Summary:
    """Return the summary of a follow that ended so."""
    summary = Summary(BUILT_IN, Command.FOLLOW, error=error, interrupted=interrupted)
    summary.add(Batch(BUILT_IN[0], followed=followed))
    return summary


def ending(followed: Followed, *, error: Error | None = None, interrupted: bool = False) -> str:
    """Return what is said at the end."""
    return "\n".join(follow_lines(summary_of(followed, error=error, interrupted=interrupted), "keys.jsonl"))


def batch(followed: Followed, *keys: KeyOutcome) -> Batch:
    """Return news of a follow."""
    tally = Tally()
    for key in keys:
        tally.count(key.word, key.text)
    return Batch(BUILT_IN[0], tally=tally, keys=list(keys), followed=followed)


def printed(capsys: pytest.CaptureFixture[str], *batches: Batch, quiet: bool = False) -> str:
    """Return what is printed of batches, one after the other."""
    summary = Summary(BUILT_IN, Command.FOLLOW)
    reporter = ConsoleReporter(summary, to_stderr=False, quiet=quiet, verbose=False)
    for each in batches:
        summary.add(each)
        reporter.batch(each)
    reporter.close_section()
    return capsys.readouterr().out


def steps(*texts: str) -> Batch:
    """Return news of a follow that has these steps behind it, as far as they are told."""
    return batch(Followed(phase=Phase.FOLLOWING, steps=texts))


def steps_in(told: str) -> list[str]:
    """Return the lines that are steps: the others say whether it is in step."""
    return [line.strip() for line in told.splitlines() if line and "step" not in line]


def test_each_step_is_printed_once_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    """Also once the first ones are not told any more, and where two are the same."""
    told = printed(
        capsys, steps(), steps("one"), steps("one"), steps("one", "two", "two"), steps("two", "two", "three"), steps()
    )
    assert steps_in(told) == ["one", "two", "two", "three"]
    told = printed(capsys, steps("one", "two"), steps("three", "four"))
    assert steps_in(told) == [
        "one",
        "two",
        "three",
        "four",
    ]
    assert printed(capsys, steps("one"), quiet=True) == ""


def test_a_straggler_is_named_at_once_and_counted_beside_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """On the screen, in the report, and by exit code 3."""
    news = batch(Followed(phase=Phase.MIRRORING_BACK, side=Side.TARGETS, stragglers=1, was_in_step=True), STRAGGLER)
    assert "straggler job:1 -> step:1  written after the flip\n" in printed(capsys, news)
    assert json_output.key_document(BUILT_IN[0], STRAGGLER) == {
        "source": "job:1",
        "target": "step:1",
        "word": "straggler",
        "text": "written after the flip",
    }
    summary = Summary(BUILT_IN, Command.FOLLOW)
    summary.add(news)
    assert (summary.totals.found, summary.totals.words) == (0, [(Word.STRAGGLER, 1)])
    assert summary.exit_code is Exit.UNFINISHED


@pytest.mark.parametrize(
    ("followed", "text"),
    [
        (BEFORE, "in step"),
        (AFTER, "mirroring back, in step"),
        (Followed(phase=Phase.MIRRORING_BACK, dirty=3), "mirroring back, not in step: 3 to mirror"),
        (Followed(phase=Phase.MIRRORING_BACK, stragglers=1), "mirroring back, not in step: 1 straggler"),
        (Followed(phase=Phase.FREEZING, dirty=3), "writes are frozen"),
        (FINISHED, "finished"),
        (Followed(phase=Phase.COPYING), "not in step: copying"),
    ],
    ids=str,
)
def test_where_it_stands_is_told_in_words(followed: Followed, text: str) -> None:
    """In a line, and in the block of a terminal."""
    assert messages.follow_state(followed) == text
    assert messages.follow_line(followed, 0, 0).startswith(f"{text}; lag ")
    assert dict(follow_block(followed, 0, 0))["state"] == text


def test_the_block_says_which_names_are_written_and_what_was_done_last() -> None:
    """Once there is something to say."""
    assert not {"writes", "stragglers", "last step"} & dict(follow_block(BEFORE, 0, 0)).keys()
    block = dict(follow_block(AFTER, 0, 0))
    assert (block["writes"], block["last step"]) == ("the application writes the new names", "flipped")


def test_the_end_says_what_goes_on_and_what_to_do_next() -> None:
    """Before a flip, after one, after one that was refused, and after finish."""
    assert "The application writes" not in ending(BEFORE)
    refused = Followed(phase=Phase.FOLLOWING, in_step=True, attempts=5)
    assert "The application writes the old names, as the flag says" in ending(refused)
    flipped = ending(AFTER)
    assert flipped.startswith("IN STEP at the end: every write that was executed before the last barrier is in its old")
    assert "The application writes the new names" in flipped
    assert "The same command with its --flip goes on" in flipped
    assert "Nobody follows now" not in flipped
    finished = ending(FINISHED)
    assert finished.startswith("FINISHED: the application writes the new names.")
    assert "rollback with the sides of the rules exchanged" in finished
    assert "goes on" not in finished


def test_an_end_in_mid_course_says_which_side_is_behind() -> None:
    """An error, a second signal; and a refusal at the start has done nothing."""
    assert ending(AFTER, error=Error("lost")).startswith("STOPPED: each old name is what its new name was")
    assert ending(BEFORE, interrupted=True).startswith("INTERRUPTED: each target is what its source was")
    assert ending(BEFORE, error=Refused("no")).startswith("REFUSED: nothing was written.")


def test_stragglers_are_explained_at_the_end() -> None:
    """What each means, what to do, and where they are named."""
    text = ending(Followed(phase=Phase.MIRRORING_BACK, side=Side.TARGETS, stragglers=2))
    assert "2 stragglers: old names that somebody has written who had read the flag before it was flipped." in text
    assert "then delete the old one (DEL)" in text
    assert text.endswith("Which keys: keys.jsonl.")


def test_programs_are_told_the_same() -> None:
    """In the summary, and by control."""
    document = json_output.document(summary_of(AFTER), None)["followed"]
    assert (document["side"], document["attempts"], document["steps"]) == ("targets", 1, ["frozen", "flipped"])
    assert (document["freeze_ms"], document["phase"]) == (3.5, "mirroring back")
