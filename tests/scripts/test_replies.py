"""What scripts answer is read, and what cannot be an answer is found out."""

from __future__ import annotations

import pytest

from luamigrate.model.errors import Error
from luamigrate.scripts.calls import Answer
from luamigrate.scripts.replies import key_state

DIGEST = b"d" * 40


@pytest.mark.parametrize(
    ("answer", "asked_for"),
    [
        ([b"hash", -1, DIGEST, 50], ""),
        ([b"hash", -1, b"", 50, b"payload"], "payload"),
        ([b"hash", -1, DIGEST, 50, 3], "size"),
        ([b"hash", -1, DIGEST, 50, [b"a", b"1"], []], "contents"),
    ],
)
def test_a_key_is_told_of_with_what_was_asked_for(answer: list[object], asked_for: str) -> None:
    """Each way to ask has its own form of answer, and no other will do."""
    assert key_state(answer, asked_for).size == 50
    for other in {"", "payload", "size", "contents"} - {asked_for}:
        with pytest.raises(Error, match="does not tell about a key as it should"):
            key_state(answer, other)


@pytest.mark.parametrize(
    "answer",
    [b"hash", [], [b"hash", -1, DIGEST], [b"hash", b"-1", DIGEST, 50], [5, -1, DIGEST, 50], [b"hash", -1, b"", 50]],
)
def test_what_lacks_a_part_is_no_answer_about_a_key(answer: Answer) -> None:
    """Type, expiry, digest and bytes, in this order."""
    with pytest.raises(Error, match="does not tell about a key as it should"):
        key_state(answer)
