"""CHANGELOG.md goes by version, newest first, and begins with the one that is here."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import luamigrate

TEXT = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
CUT = re.findall(r"^## (\d+)\.(\d+)\.(\d+) \(([\d-]+)\)$", TEXT, re.MULTILINE)


def test_the_newest_version_is_the_one_of_the_program() -> None:
    """Whoever cuts a version says what is in it."""
    assert ".".join(CUT[0][:3]) == luamigrate.__version__


def test_versions_come_newest_first_and_each_has_its_day() -> None:
    """No section goes by another name, but for one above them that is not cut yet."""
    sections = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    unreleased = re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \(unreleased\)", sections[0])
    assert len(CUT) == len(sections) - bool(unreleased)
    assert not unreleased or tuple(map(int, unreleased.groups())) > tuple(map(int, CUT[0][:3]))
    versions = [tuple(map(int, numbers)) for *numbers, _ in CUT]
    days = [date.fromisoformat(day) for *_, day in CUT]
    assert versions == sorted(set(versions), reverse=True)
    assert days == sorted(days, reverse=True)
