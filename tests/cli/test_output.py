"""What is printed and written: for people, for programs, for terminals that must stay whole."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from luamigrate.cli.options import environment
from tests.conftest import run
from tests.instances import Instance
from tests.migration.test_run import HASHES, fill
from tests.processes import of_this_test
from tests.schemas import read_document

COMMAND = (sys.executable, "-m", "luamigrate", "run")


def make_every_word(server: Instance) -> None:
    """Keys for most status words, and a name with a terminal's control characters."""
    fill(server.client, jobs=20)
    server.client.hset(b"job:\x1b[2J\r\n\xff\\ \xe2\x80\xae", "a", "1")
    server.client.hset(b"step:\x1b[2J\r\n\xff\\ \xe2\x80\xae", "a", "2")
    server.client.hset("step:1", mapping={"id": 1})
    server.client.copy("job:2", "step:2")
    server.client.set("job:counter", 1)


def test_the_json_document_has_the_shape_of_the_contract(any_server: Instance) -> None:
    """Every name the documentation gives, with the right kind of value."""
    make_every_word(any_server)
    result = run(any_server, "--json")
    document = result.document
    assert list(document) == [
        "command",
        "dry_run",
        "validated",
        "interrupted",
        "exit_code",
        "server",
        "rules",
        "totals",
        "duration_seconds",
        "slowest_script_ms",
        "warnings",
        "error",
        *(["shards"] if any_server.mode == "cluster" else []),
    ]
    assert document["command"] == "run"
    assert document["exit_code"] == result.code == 3
    assert document["rules"][0] == {
        "source": "job:*",
        "target": "step:*",
        "type": "hash",
        "found": 21,
        "copied": 18,
        "same": 1,
        "partial": 1,
        "differs": 1,
        "ignored": {"string": 1},
        "failed_reasons": {},
    }
    assert document["server"]["mode"] == any_server.mode
    assert document["server"]["nodes"] == len(any_server.shards())
    assert 0 < document["slowest_script_ms"] < document["duration_seconds"] * 1000
    assert document["error"] is None
    assert "Summary" in result.err, "the human lines go to standard error"


def test_the_numbers_add_up(any_server: Instance) -> None:
    """`found` is the sum of the words, of each rule and of the totals; the human block says the same."""
    make_every_word(any_server)
    document = run(any_server, "--json", "--dry-run").document
    words = ("missing", "same", "expiry", "partial", "differs", "gone", "failed", "exists", "copied")
    for counts in (*document["rules"], document["totals"]):
        assert counts["found"] == sum(counts.get(word, 0) for word in words)
    assert sum(rule["found"] for rule in document["rules"]) == document["totals"]["found"] == 25

    numbers = {
        name.strip(): int(number)
        for name, number in re.findall(r"^  ([A-Z][^:]*?)\s{2,}(\d+)$", run(any_server).out, re.MULTILINE)
    }
    assert numbers == {
        "Total keys found": 25,
        "Successfully migrated": 22,
        "Skipped (already exist)": 3,
        "Errors": 0,
    }


@pytest.mark.parametrize("options", [("--verbose",), ("--json",), (), ("--verbose", "--dry-run")])
def test_no_name_writes_to_the_terminal(any_server: Instance, options: tuple[str, ...]) -> None:
    """Escape sequences, line breaks, invalid UTF-8 and direction marks come out escaped."""
    make_every_word(any_server)
    result = run(any_server, *options)
    for text in (result.out, result.err):
        assert all(character.isprintable() or character == "\n" for character in text)
    assert r"job:\x1b[2J\x0d\x0a\xff\\ \xe2\x80\xae" in result.out + result.err


def test_the_report_has_a_line_per_key_that_is_not_clean(any_server: Instance, tmp_path: Path) -> None:
    """JSON Lines with escaped names; with --report-all, every key."""
    make_every_word(any_server)
    file = tmp_path / "report.jsonl"
    run(any_server, "--report", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted((line["source"], line["target"], line["word"]) for line in lines) == [
        ("job:1", "step:1", "partial"),
        (r"job:\x1b[2J\x0d\x0a\xff\\ \xe2\x80\xae", r"step:\x1b[2J\x0d\x0a\xff\\ \xe2\x80\xae", "differs"),
    ]
    run(any_server, "--report", str(file), "--report-all", "--dry-run")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 26
    assert {"source": "job:counter", "target": "step:counter", "word": "ignored", "type": "string"} in lines
    partial = next(line for line in lines if line["word"] == "partial")
    assert (partial["source_size"], partial["target_size"]) == (3, 1)


def test_failed_keys_are_reported_with_reason_and_text(any_server: Instance, tmp_path: Path) -> None:
    """The server's error text is printed."""
    fill(any_server.client, jobs=3)
    any_server.client.config_set("maxmemory", 1)
    try:
        file = tmp_path / "report.jsonl"
        result = run(any_server, *HASHES, "--ignore-check", "memory", "--report", str(file))
    finally:
        any_server.client.config_set("maxmemory", 0)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["reason"] for line in lines] == ["oom"] * 3
    assert "maxmemory" in lines[0]["text"]
    assert "failed   job:" in result.out
    assert "oom: " in result.out


def test_a_report_that_runs_out_of_disk_ends_the_run_with_what_was_done(any_server: Instance) -> None:
    """The loss is said, the summary comes, and the exit code is 1."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    fill(any_server.client, jobs=3)
    result = run(any_server, "--report", "/dev/full", "--report-all")
    assert result.code == 1
    assert "--report: cannot write /dev/full: No space left on device" in result.err
    assert "STOPPED before the end" in result.out


def test_only_ten_unclean_keys_are_shown(any_server: Instance) -> None:
    """The rest is counted, and the report named as the place to find them."""
    fill(any_server.client, jobs=25)
    for number in range(25):
        any_server.client.hset(f"step:{number}", "other", "1")
    out = run(any_server).out
    assert out.count("  differs  job:") == 10
    assert "15 more such keys are not shown above." in out


def test_quiet_prints_the_summary_alone(any_server: Instance) -> None:
    """No heading, no configuration, no sections."""
    fill(any_server.client, jobs=3)
    out = run(any_server, "--quiet").out
    assert out.startswith("\nSummary\n")
    assert "Connected" not in out
    assert "[1/5]" not in out


def test_the_configuration_names_where_each_value_comes_from(any_server: Instance) -> None:
    """Option, environment or default."""
    out = run(any_server, "--batch-size", "7", env={"DRY_RUN": "TRUE"}).out
    assert re.search(r"batch size +7 +\(--batch-size\)", out)
    assert re.search(r"dry run +true +\(DRY_RUN\)", out)
    assert re.search(r"validate +true +\(default\)", out)
    assert re.search(rf"url +{any_server.url} +\(REDIS_URL\)", out)
    assert re.search(r"plan +5 rules +\(built in\)", out)


def test_a_warning_about_running_after_cut_over_closes_a_run_that_copied(any_server: Instance) -> None:
    """An emptied queue would be copied back: the last line says so."""
    fill(any_server.client, jobs=3)
    assert "once consumers work on the targets, it would copy back" in run(any_server).out
    assert "Every source that was found has an equal target" in run(any_server).out


def test_a_closed_output_does_not_stop_the_copying(any_server: Instance) -> None:
    """`luamigrate run | head -1` copies everything, quietly."""
    fill(any_server.client, jobs=3000)
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        (*COMMAND, "--verbose"),
        env=environment(REDIS_URL=any_server.url),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (0, b"")
    assert any_server.client.exists("steps:pending")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("options", ["", "--json", "--verbose"])
def test_closed_standard_streams_do_not_stop_the_copying(any_server: Instance, closed: str, options: str) -> None:
    """Nothing is printed there, and nothing lands in the connection instead."""
    fill(any_server.client, jobs=20)
    command = f"exec {sys.executable} -m luamigrate run {options} {closed}"
    env = environment(REDIS_URL=any_server.url)
    process = subprocess.run(("/bin/sh", "-c", command), env=env, capture_output=True, text=True, check=False)
    assert process.returncode == 0
    assert "Traceback" not in process.stderr
    assert any_server.client.exists("steps:pending")


@pytest.mark.parametrize("options", ["run --json", "run --help", "--help"])
def test_a_full_disk_is_said_where_the_output_was_the_point(any_server: Instance, options: str) -> None:
    """Exit 1 and one line."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    fill(any_server.client, jobs=3)
    command = f"exec {sys.executable} -m luamigrate {options} >/dev/full"
    env = environment(REDIS_URL=any_server.url)
    process = subprocess.run(("/bin/sh", "-c", command), env=env, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "No space left on device" in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr


def test_the_document_is_json_on_every_terminal(any_server: Instance) -> None:
    """Whatever encoding standard output has."""
    any_server.client.hset("jöb:1", "a", "1")
    command = (*COMMAND, "--json", "--map", "jöb:*=stép:*", "--type", "hash")
    for encoding in ("ascii", "latin-1", "utf-8"):
        env = environment(REDIS_URL=any_server.url, PYTHONIOENCODING=encoding)
        process = subprocess.run(command, env=env, capture_output=True, check=False)
        assert read_document(process.stdout)["rules"][0]["source"] == "jöb:*"


def test_an_output_that_cannot_show_a_name_shows_something(any_server: Instance) -> None:
    """An ASCII terminal is no reason for a traceback."""
    any_server.client.hset("job:é→", "a", "1")
    process = subprocess.run(
        (*COMMAND, "--verbose", *HASHES),
        env=environment(REDIS_URL=any_server.url, PYTHONIOENCODING="ascii"),
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert rb"job:\xe9\u2192" in process.stdout


def test_a_terminal_gets_a_progress_bar(any_server: Instance) -> None:
    """With rate and time left; it is gone when the rule is done."""
    fill(any_server.client, jobs=20_000)
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        (*COMMAND, *HASHES, "--batch-size", "10"),
        env=environment(REDIS_URL=any_server.url, TERM="xterm"),
        stdout=terminal,
        stderr=terminal,
    )
    of_this_test(process)
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 65536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(controller)
    assert process.wait() == 0
    assert b"keys/s" in shown
    assert b"20,000 copied" in shown
    assert b"% scanned" not in shown


def test_no_terminal_gets_plain_lines_now_and_then(any_server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share scanned, keys, rate, time left; no control characters."""
    monkeypatch.setattr("luamigrate.cli.reporter.SECONDS_BETWEEN_LINES", 0.0)
    fill(any_server.client, jobs=1000)
    out = run(any_server, *HASHES, "--batch-size", "100").out
    assert re.search(
        r"^  \d+% of [\d,]+ keys scanned; [\d,]+ found, [\d,]+ a second now, about \d+ s left$", out, re.MULTILINE
    )
