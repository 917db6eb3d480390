"""Names of keys and fields that are drawn by chance, in everything that is printed and written."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from luamigrate.model.errors import printable
from tests.conftest import run
from tests.instances import Instance
from tests.project.test_fuzz import NASTY, drawn, is_safe

parts_of_names = st.one_of(
    st.sampled_from(NASTY).map(str.encode), st.binary(max_size=4), st.sampled_from((b"\xff", b"\xc3"))
)
key_names = st.lists(parts_of_names, max_size=5).map(b"".join)
_ESCAPED = re.compile(rb"\\(?:\\|x([0-9a-f]{2}))")


def unescaped(text: str) -> bytes:
    """Return the name that is shown like this."""
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()) if match[1] else b"\\", text.encode())


@settings(drawn, max_examples=10)
@given(middles=st.sets(key_names, min_size=1, max_size=12), prefix=key_names, field=key_names)
@example(middles={b"\x1b[2J\r\n", b"\xff\x00", b"\\x1b", b'"', b"'"}, prefix=b"", field=b"\x1b[2J\xff")
def test_names_are_safe_and_reversible_in_every_output(
    server: Instance, tmp_path: Path, middles: set[bytes], prefix: bytes, field: bytes
) -> None:
    """Screen, JSON and report have no control character, and the report gives every name back."""
    server.client.flushall()
    prefix = b"s:" + prefix.replace(b"*", b"").replace(b"=", b"").replace(b"\x00", b"")
    pairs = {(prefix + middle, b"t:" + middle) for middle in middles}
    for number, (source, target) in enumerate(sorted(pairs)):
        server.client.hset(source, mapping={field + b"1": "\x1b[2J", field + b"2": "1"})
        if number % 2:
            server.client.hset(target, field + b"1", field)
    file, rule = tmp_path / "report.jsonl", ("--map", f"{os.fsdecode(prefix)}*=t:*")
    seen = run(server, *rule, "--verbose", "--dry-run")
    told = run(server, *rule, "--json", "--report", str(file), "--report-all", "--show-values")
    report = file.read_text(encoding="utf-8")
    assert is_safe(seen.out + seen.err + told.out + told.err + report)
    assert unescaped(told.document["rules"][0]["source"]) == prefix + b"*"
    lines = [json.loads(line) for line in report.split("\n") if line]
    assert sorted((unescaped(line["source"]), unescaped(line["target"])) for line in lines) == sorted(pairs)
    assert all(printable(source) in seen.out and printable(target) in seen.out for source, target in pairs)
    for line in lines:
        assert set(map(unescaped, line.get("missing_names", []))) <= {field + b"2"}
