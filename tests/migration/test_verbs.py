"""What holds of every verb, a new one included."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from luamigrate.migration.verbs import Verb
from luamigrate.model.status import Word
from luamigrate.scripts import library

WRITING = {Word.COPIED, Word.FILLED, Word.REMOVED}
"""Words that say that something was written."""


def verbs(parent: type[Verb] = Verb) -> Iterator[type[Verb]]:
    """Yield all verbs there are."""
    for verb in parent.__subclasses__():
        yield verb
        yield from verbs(verb)


@pytest.mark.parametrize("verb", list(verbs()), ids=lambda verb: verb.__name__)
def test_a_verb_is_complete(verb: type[Verb]) -> None:
    """Its scripts are there, and its dry run writes nothing, nor may any script say so."""
    assert all(library.source(name) for name in verb.scripts)
    rehearsal = verb().rehearsal()  # type: ignore[call-arg]  # each has a command of its own
    assert not rehearsal.writes
    assert not rehearsal.possible & WRITING
    assert rehearsal.rehearsal() == rehearsal
    assert verb().writes == bool(verb().possible & WRITING)  # type: ignore[call-arg]
