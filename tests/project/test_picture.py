"""docs/images/demo.svg shows what a real session prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import binaries
from tools import picture


def test_the_picture_is_what_a_session_looks_like_today() -> None:
    """Otherwise `make pictures` has been forgotten."""
    found = binaries.find("valkey-9.1")
    if not isinstance(found, Path):
        pytest.skip(str(found))
    assert picture.draw() == picture.PICTURE.read_text(encoding="utf-8")


def test_the_picture_fetches_nothing() -> None:
    """Whoever looks at it asks nobody for a font or a style."""
    drawn = picture.PICTURE.read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import|@font-face|href", drawn)
    assert "luamigrate&#160;verify" in drawn
