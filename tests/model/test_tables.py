"""Pairs files: every name that can be printed can be pasted, and what is odd is told with its line."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luamigrate import UsageError, plan_from_pairs, printable
from luamigrate.model.rules import RESERVED
from luamigrate.model.tables import some_of

names = st.binary(min_size=1, max_size=12).filter(lambda name: not name.startswith(RESERVED))


@given(sources=st.lists(names, min_size=1, max_size=5, unique=True), data=st.data())
def test_a_printed_name_can_be_pasted_whatever_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, sources: list[bytes], data: st.DataObject
) -> None:
    """Both sides of the table are the names that were printed, in their order; a first # is escaped."""
    targets = data.draw(st.lists(names, min_size=len(sources), max_size=len(sources), unique=True))
    lines = [f"{printable(a)}\t{printable(b)}" for a, b in zip(sources, targets, strict=True)]
    lines = [line.replace("#", "\\x23", 1) if line.startswith("#") else line for line in lines]
    file = tmp_path_factory.mktemp("pairs") / "names.tsv"
    file.write_bytes("\n".join(lines).encode())
    (rule,) = plan_from_pairs(file, database=3)
    assert list(rule.source_names or ()) == sources
    pairs = rule.pairs(sources)
    assert pairs.targets == targets
    assert rule.pairs_of_targets(targets).sources == sources


def written(folder: Path, content: bytes) -> Path:
    """Write a pairs file."""
    file = folder / "pairs.tsv"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    "content",
    [
        b"a\tb\n",
        b"a\tb",
        b"a\tb\r\n",
        b"\xef\xbb\xbfa\tb\n",
        b"# names\n\na\tb\n#\n# end",
    ],
)
def test_line_ends_marks_and_comments_are_no_part_of_a_name(tmp_path: Path, content: bytes) -> None:
    """Those of other systems included."""
    (rule,) = plan_from_pairs(written(tmp_path, content))
    assert list(rule.source_names or ()) == [b"a"]
    assert list(rule.target_names or ()) == [b"b"]


def test_patterns_mean_nothing_in_a_table(tmp_path: Path) -> None:
    """Stars, angle brackets and equals signs are literal."""
    (rule,) = plan_from_pairs(written(tmp_path, b"a*<b>=c\t*=\\\\\\x3d\n"))
    assert list(rule.source_names or ()) == [b"a*<b>=c"]
    assert list(rule.target_names or ()) == [b"*=\\="]


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"", ["has no pair"]),
        (b"# nothing\n", ["has no pair"]),
        (b"a\tb\nc\n", ["line 2", "one tab"]),
        (b"a\tb\tc\n", ["line 1", "one tab"]),
        (b"a\t\n", ["line 1", "one tab"]),
        (b"\tb\n", ["line 1", "one tab"]),
        (b"#a\n", ["line 1", "one tab"]),
        (b"\x7fELF\x01\x00\tx\n", ["line 1", "control characters"]),
        (b"a\tb\x00\n", ["line 1", "control characters"]),
        (b"a\\*\tb\n", ["line 1", r"'\*' is no escape"]),
        (b"a\\x4\tb\n", ["line 1", "is no escape"]),
        (b"a\tb\\\n", ["line 1", "is no escape"]),
        (b"a\tb\n\nc\tb\n", ["line 3", "the target 'b' is on line 1 too"]),
        (b"a\tb\n# more\na\tc\n", ["line 3", "the source 'a' is on line 1 too"]),
        (b"a\tb\n# more\nb\tc\n", ["'b' is the target on line 1 and the source on line 3"]),
        (b"x\ty\nb\tc\na\tb\n", ["'b' is the target on line 3 and the source on line 2"]),
        (b"a\ta\n", ["'a' is the target on line 1 and the source on line 1"]),
        (b"luamigrate:x\tb\n", ["line 1", "reserved"]),
        (b"a\tluamigrate:x\n", ["line 1", "reserved"]),
    ],
)
def test_what_is_odd_is_told_with_its_line(tmp_path: Path, content: bytes, fragments: list[str]) -> None:
    """And with the name of the file."""
    with pytest.raises(UsageError) as told:
        plan_from_pairs(written(tmp_path, content))
    for fragment in ("pairs.tsv", *fragments):
        assert fragment in str(told.value)
    assert "\n" not in str(told.value)


def test_what_is_odd_is_told_of_a_pipe_too(tmp_path: Path) -> None:
    """It can be read only once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for content, told in ((b"a\tb\na\tc\n", "is on line 1 too"), (b"a\tb\nb\tc\n", "the source on line 2")):
        writer = threading.Thread(target=pipe.write_bytes, args=(content,), daemon=True)
        writer.start()
        with pytest.raises(UsageError, match=told):
            plan_from_pairs(pipe)
        writer.join()


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """With the system's reason."""
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=reason):
            plan_from_pairs(path)


def test_one_bad_line_among_many_is_found(tmp_path: Path) -> None:
    """Also the last one of a hundred thousand."""
    lines = [b"job:%d\tstep:%d" % (number, number) for number in range(100_000)]
    with pytest.raises(UsageError, match="line 100001: the source 'job:77' is on line 78 too"):
        plan_from_pairs(written(tmp_path, b"\n".join([*lines, b"job:77\tother"])))


def test_a_table_knows_its_sources_and_its_targets(tmp_path: Path) -> None:
    """And no other name; a target is one only in its own database."""
    plan = plan_from_pairs(written(tmp_path, b"a\tb\nc\td\n"), database=2)
    assert plan.rule_for(b"a") is plan[0]
    assert plan.rule_for(b"b") is None
    assert plan.origin(b"b", 2) == (plan[0], b"a")
    assert plan.origin(b"b") is plan.origin(b"a", 2) is plan.origin(b"pairs.tsv", 2) is None


@pytest.mark.parametrize(("number", "most"), [(0, 5), (3, 5), (5, 5), (6, 5), (1000, 100), (1001, 100)])
def test_names_are_sampled_from_all_over(number: int, most: int) -> None:
    """At most so many of them, the first among them, all where there are no more."""
    names = {b"%d" % each: b"" for each in range(number)}.keys()
    some = some_of(names, most)
    assert len(some) <= most
    assert list(some) == sorted(some, key=int)
    assert number > most or list(some) == list(names)
    assert not number or int(some[-1]) >= number * 0.6
