"""What comes from outside is drawn by chance: plan files, rules, URLs and options."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from luamigrate import UsageError
from luamigrate.cli.options import environment
from luamigrate.model.errors import printable
from luamigrate.model.plan_files import plan_from_file, plan_from_maps
from luamigrate.model.rules import TYPES
from luamigrate.server.connect import pool_for
from luamigrate.server.url import ServerUrl
from tests.conftest import Result, luamigrate

SECRET = "hunter2"

drawn = settings(
    derandomize=True,
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""The same examples each time: what fails once fails always."""

NASTY = (
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\r\n",
    "\x00",
    "\x7f",
    "\u202e",
    '"',
    "'",
    "\\",
    "\\x41",
    "{a}",
    "*",
    "?",
)
fragments = st.one_of(st.sampled_from(NASTY), st.text(max_size=5), st.sampled_from(("é", "\udcff\udc80", "日本")))
texts = st.lists(fragments, max_size=6).map("".join)
"""As Python has what the shell hands over: bytes that are not UTF-8 are surrogates."""
arguments = texts.filter(lambda text: "\x00" not in text and text.isascii())
"""What a process can be given; in this one nothing stands for bytes that are not UTF-8, as on a real screen."""


def is_safe(text: str) -> bool:
    """Tell whether a terminal shows this as it is, line by line."""
    return all(character.isprintable() or character == "\n" for character in text)


def assert_a_line(error: UsageError, begins: str = "") -> None:
    """Assert that an error is one line that begins like this and cannot write to the terminal."""
    assert str(error).isprintable()
    assert str(error).startswith(begins)
    assert str(error)


def as_bytes(text: str) -> bytes:
    """Return text as the bytes that it stands for, whatever its characters."""
    return text.encode(
        "utf-8", "surrogatepass" if re.search("[\ud800-\udc7f\udd00-\udfff]", text) else "surrogateescape"
    )


# Plan files


def toml(value: Any) -> str:
    """Write a value as TOML."""
    match value:
        case dict():
            return "{" + ", ".join(f"{toml(str(name))} = {toml(part)}" for name, part in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return repr(value)


names = st.sampled_from(("source", "target", "type", "rule", "sauce", "", "\x1b[2J"))
patterns = st.one_of(st.sampled_from(("a:*", "b:*", "a", "", "**", "luamigrate:x", *TYPES)), st.text(max_size=4))
scalars = st.one_of(patterns, st.integers(), st.booleans(), st.floats())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)
tables = st.dictionaries(names, st.one_of(patterns, patterns, values), max_size=4)
heads = st.sampled_from(("[[rule]]", "[[rule]]", "[rule]", "[[rules]]", "[rule.source]", "# nothing", "rule = [1]"))


@st.composite
def plans(draw: st.DrawFn) -> bytes:
    """Draw tables that are nearly those of a plan."""
    lines = []
    for table in draw(st.lists(tables, max_size=3)):
        lines += [draw(heads), *(f"{toml(name)} = {toml(value)}" for name, value in table.items())]
    return as_bytes("\n".join(lines))


@drawn
@given(content=st.one_of(plans(), plans(), texts.map(as_bytes), st.binary(max_size=30)))
@example(b"")
@example(b'\xef\xbb\xbf[[rule]]\nsource = "a"\ntarget = "b"')
@example(b'[[rule]]\nsource = "a\\u0000"\ntarget = "b\\u001b"\ntype = "\\u001b"')
@example(b"x = " + b"9" * 5000)
@example(b"x = " + b"{a = " * 2000)
@example(b"# " + b"a" * 1_000_000)
@example(b'"' + b"\\u001b" * 1000 + b'" = 1')
@example(b"[rule]\n[rule]")
@example(b"[[rule]]\nsource = 1\nsource = 1")
def test_a_plan_file_is_a_plan_or_a_usage_error(tmp_path: Path, content: bytes) -> None:
    """Whatever is in it: the one line that says why cannot write to the terminal."""
    file = tmp_path / "plan.toml"
    file.write_bytes(content)
    try:
        assert plan_from_file(file)
    except UsageError as error:
        assert_a_line(error, f"plan file {file}")


@pytest.mark.parametrize(
    "content",
    [b"\x00", b"\xff\xfe[\x00[\x00", b"\xef\xbb\xbf", b"[[rule]]\n" * 1000, b"[" * 100_000, b'"\\u001b[2J\\n" = 1'],
)
def test_a_plan_file_ends_a_real_process_with_a_line(tmp_path: Path, content: bytes) -> None:
    """Exit 2, one line, no traceback, nothing on standard output."""
    file = tmp_path / "plan.toml"
    file.write_bytes(content)
    command = (sys.executable, "-m", "luamigrate", "run", "--plan", str(file))
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("luamigrate: plan file ")
    assert is_safe(ended.stderr)


# Rules and other options


@drawn
@given(maps=st.lists(st.one_of(texts, st.tuples(texts, texts).map("=".join)), min_size=1, max_size=3), kind=texts)
@example(maps=["a" * 1_000_000 + "=" + "*" * 1000], kind="any")
@example(maps=["=" * 1000], kind="any")
@example(maps=["\udcff*=\udcfe*"], kind="any")
def test_maps_are_a_plan_or_a_usage_error(maps: list[str], kind: str) -> None:
    """Whatever their bytes, a plan keeps them, and what it prints of its patterns makes the same plan."""
    for chosen in ("any", kind):
        try:
            plan = plan_from_maps(maps, chosen)
        except UsageError as error:
            assert_a_line(error)
        else:
            printed = [str(side) for rule in plan for side in (rule.source, rule.target)]
            assert all(map(str.isprintable, printed))
            assert plan_from_maps(list(map("=".join, in_pairs(printed))), chosen) == plan
            if not any(special in text for text in maps for special in "\\<'"):
                sides = [side for text in maps for side in text.split("=")]
                assert printed == [printable(os.fsencode(side)) for side in sides]


def in_pairs(sides: list[str]) -> Iterator[tuple[str, str]]:
    """Yield source and target of each rule."""
    return zip(sides[::2], sides[1::2], strict=True)


OPTIONS = {
    "--batch-size": "BATCH_SIZE",
    "--dry-run": "DRY_RUN",
    "--ignore-check": "",
    "--json": "",
    "--map": "",
    "--max-pause": "MAX_PAUSE",
    "--max-rate": "MAX_RATE",
    "--on-existing": "ON_EXISTING",
    "--password-file": "REDIS_PASSWORD_FILE",
    "--patience": "PATIENCE",
    "--plan": "LUAMIGRATE_PLAN",
    "--report": "",
    "--settle": "SETTLE",
    "--tls-ca": "TLS_CA",
    "--type": "",
    "--url": "REDIS_URL",
}
"""With the variable of each."""
NOBODY = "redis://127.0.0.1:1"


def assert_refused(result: Result) -> None:
    """Assert that a command ended before any work, with one safe line, and showed nothing unsafe."""
    assert result.code in (1, 2), result.err
    assert is_safe(result.out + result.err)
    assert result.err.startswith("luamigrate: ")
    assert result.err.count("\n") == 1


@settings(drawn, max_examples=50)
@given(name=st.sampled_from(sorted(OPTIONS)), value=arguments, how=st.sampled_from(("option", "variable", "surplus")))
@example(name="--map", value="\x1b[2J", how="surplus")
@example(name="--x\x1b[2J", value="\x1b[2J", how="option")
@example(name="--batch-size", value="\x1b[2J\n", how="variable")
def test_odd_options_cannot_write_to_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, how: str
) -> None:
    """Neither an option's value, nor a variable's, nor a word too many: one line, exit 2, or 1 with nobody there."""
    monkeypatch.chdir(tmp_path)  # a report may be opened
    variable = OPTIONS.get(name)
    if how == "variable" and variable:
        assert_refused(luamigrate("run", "--quiet", env={"REDIS_URL": NOBODY, variable: value}))
    elif how == "surplus":
        assert_refused(luamigrate("run", "--quiet", "--", f"x{value}", url=NOBODY))
    else:
        assert_refused(luamigrate("run", "--quiet", f"{name}={value}", url=NOBODY))


# URLs

schemes = st.sampled_from(("redis", "rediss", "unix", "sentinel", "http", ""))
hosts = st.one_of(
    st.sampled_from(("h", "[::1]", "[::1", "::1", "[v1.a]", "[::1%25eth0]", "a..b", ".", "%00", "a\x00b", "h,h:1", "")),
    texts,
)
ports = st.sampled_from(
    ("", ":", ":0", ":6379", ":65535", ":65536", ":-1", ":x", ":1:2", ": 1", ":٣", f":{'9' * 5000}")
)
paths = st.one_of(
    st.sampled_from(("", "/", "/0", "/x", "/-1", "/0/1", "/s/1", "/%30", "/s/%00", f"/{'9' * 30}", "/s/x")), texts
)
queries = st.one_of(
    st.just(""),
    st.sampled_from(
        (
            "?",
            "?db=1",
            "?db=",
            "?db=x",
            "?db=1&db=1",
            f"?sentinel_password={SECRET}",
            "?tls=true",
            "?tls=x",
            "?\x1b=1",
            "#x",
        )
    ),
    texts.map("?".__add__),
)
users = st.sampled_from(
    ("", f":{SECRET}@", f"user:{SECRET}@", f"us%40er:{SECRET}@", f"user:{SECRET}%zz@", f"{SECRET}@")
)


def assert_url_is_read(url: str) -> None:
    """Assert that a URL is good or a usage error, without its password being shown."""
    try:
        read = ServerUrl.parse(url)
        shown = read.redacted
        pool_for(read)
    except UsageError as error:
        assert_a_line(error)
        shown = str(error)
    assert SECRET not in shown
    assert shown.isprintable()


@settings(drawn, max_examples=400)
@given(parts=st.tuples(schemes, st.sampled_from(("://", "://", ":", "")), users, hosts, ports, paths, queries))
def test_a_url_is_read_or_a_usage_error(parts: tuple[str, ...]) -> None:
    """Whatever it is made of; nobody is called, and no password shown."""
    assert_url_is_read("".join(parts))


@drawn
@given(url=texts)
def test_a_text_is_a_url_or_a_usage_error(url: str) -> None:
    """Likewise, whatever the text."""
    assert_url_is_read(url)
    assert_url_is_read(f"redis://{url}")
