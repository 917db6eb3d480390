"""Whose a target is, where what is told and what is answered cross each other: decided without a server."""

from __future__ import annotations

import pytest

from luamigrate.migration.dirty import SEEN, UNTOLD
from luamigrate.migration.standing import Pair, Standing
from luamigrate.model.rules import Rule
from luamigrate.model.status import Word

RULE = Rule.parse(b"job:*", b"step:*", "any")
SOURCE, TARGET = b"job:1", b"step:1"
TOLD = 1.0
BARRIER = 7


@pytest.fixture
def standing() -> Standing:
    """After the first scan, which has claimed what it found."""
    after = Standing()
    after.claiming = False
    return after


def look(standing: Standing, moment: float = UNTOLD) -> Pair:
    """Begin to look at the pair."""
    return standing.pair(RULE, SOURCE, TARGET, moment)


def test_a_target_that_expires_before_a_change_reaches_it_is_our_own(standing: Standing) -> None:
    """Its expiry is told like a write of somebody else; but its source had changed, and is looked at again."""
    standing.known.add(SOURCE)
    sent = look(standing, TOLD)
    standing.suspect(SOURCE)
    assert standing.answered(sent, Word.COPIED, BARRIER) == []
    assert list(standing.passed(BARRIER)) == [SOURCE]


def test_a_target_that_expires_before_the_second_look_is_our_own(standing: Standing) -> None:
    """The first look had to wait for a barrier, because nobody knew who had written the target."""
    standing.known.add(SOURCE)
    standing.suspect(SOURCE)
    assert standing.answered(look(standing, TOLD), Word.FOREIGN, BARRIER) == []
    assert list(standing.passed(BARRIER)) == [SOURCE]
    standing.suspect(SOURCE)
    assert standing.answered(look(standing), Word.COPIED, BARRIER + 1) == []
    assert list(standing.passed(BARRIER + 1)) == [SOURCE]


def test_a_target_that_is_deleted_while_its_source_is_as_it_was_is_news(standing: Standing) -> None:
    """Nothing explains it."""
    standing.known.add(SOURCE)
    standing.suspect(SOURCE)
    assert standing.answered(look(standing), Word.COPIED, BARRIER) == []
    (news,) = standing.passed(BARRIER)
    assert not isinstance(news, bytes)
    assert news.word is Word.FOREIGN


def test_what_a_scan_has_seen_may_be_deleted_once_it_is_gone(standing: Standing) -> None:
    """While targets are claimed; of a name whose target alone was seen, nobody knows whether it was a source."""
    standing.loses_sight(claiming=True)
    assert look(standing, SEEN).rights == "2"
    assert look(standing, UNTOLD).rights == "1"


def test_a_look_that_began_before_its_target_was_made_is_repeated(standing: Standing) -> None:
    """Two of them were in flight: the first one made the target, then the source changed."""
    first, second = look(standing, TOLD), look(standing)
    assert standing.answered(first, Word.COPIED, BARRIER) == []
    assert standing.answered(second, Word.FOREIGN, BARRIER) == []
    assert list(standing.passed(BARRIER)) == [SOURCE]
    assert look(standing).may_replace


def test_a_target_that_was_written_after_it_was_made_is_news(standing: Standing) -> None:
    """Two looks were in flight, and somebody else wrote the target between them."""
    first, second = look(standing, TOLD), look(standing)
    assert standing.answered(first, Word.COPIED, BARRIER) == []
    standing.suspect(SOURCE)
    assert standing.answered(second, Word.FOREIGN, BARRIER) == []
    (news,) = standing.passed(BARRIER)
    assert not isinstance(news, bytes)
    assert news.word is Word.FOREIGN


def test_a_target_that_came_back_with_another_process_may_be_deleted(standing: Standing) -> None:
    """Which lacks that it was deleted, and not that its source was."""
    standing.known.add(SOURCE)
    assert standing.answered(look(standing, TOLD), Word.REMOVED, BARRIER) == []
    assert look(standing).rights == "0"
    standing.goes_back()
    assert look(standing).rights == "2"


@pytest.mark.parametrize("word", [Word.FOREIGN, Word.EXTRA])
def test_what_the_first_of_two_sendings_has_made_is_our_own(standing: Standing, word: Word) -> None:
    """The answer was lost, and the source changed or was deleted before the second one came."""
    sent = look(standing, TOLD)
    assert standing.answered(sent, word, BARRIER, repeated=True) == []
    assert list(standing.passed(BARRIER)) == [SOURCE]
    assert look(standing).may_delete


def test_what_was_somebody_elses_before_two_sendings_is_not_our_own(standing: Standing) -> None:
    """Somebody had written the target, or it had been there without a source."""
    for note in (standing.suspect, standing.extra.add):
        note(SOURCE)
        sent = look(standing, TOLD)
        standing.answered(sent, Word.EXTRA, BARRIER, repeated=True)
        assert not look(standing, TOLD).may_replace
