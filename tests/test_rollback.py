"""`luamigrate rollback`: what equals its source goes, everything else stays."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from luamigrate import scripts
from luamigrate.demo import environment
from tests.conftest import SHORT, Result, luamigrate
from tests.instances import Instance, snapshot
from tests.test_bad_input import assert_one_line
from tests.test_checks import ANYTHING, READING, commands, user
from tests.test_lua import stream
from tests.test_run import HASHES, fill

ANY = ("--map", "job:*=step:*", "--map", "jobs:*=steps:*")


def rolled_back(server: Instance, *options: str) -> Result:
    """Roll back and hold it to its promise: nothing but targets is gone, and nothing is changed."""
    before = snapshot(server.client)
    result = luamigrate("rollback", "--yes", *options, url=server.url)
    after = snapshot(server.client)
    assert {key: value for key, (value, _) in after.items()}.items() <= {k: v for k, (v, _) in before.items()}.items()
    assert all(key.startswith(b"step") for key in before.keys() - after.keys())
    return result


def fill_every_type(server: Instance) -> None:
    """Write the jobs, and a key of each other type under their names."""
    fill(server.client, jobs=50)
    client = server.client
    client.set("job:string", "text")
    client.rpush("job:list", *range(300))
    stream(client, "job:stream")
    client.expire("job:7", 10_000)
    if server.has_field_expiries:
        client.execute_command("HPEXPIRE", "job:8", 100_000, "FIELDS", 1, "id")


def test_after_run_and_rollback_everything_is_what_it_was(server: Instance) -> None:
    """By the server's own digest of the whole key space, where no target was there before."""
    fill_every_type(server)
    digest = server.digest()
    assert luamigrate("run", *ANY, url=server.url).code == 0
    assert server.digest() != digest
    result = rolled_back(server, *ANY, "--json")
    assert (result.code, result.totals) == (0, {"found": 57, "removed": 57, "ignored": 0})
    assert server.digest() == digest


def test_targets_that_differed_before_are_as_they_were(server: Instance) -> None:
    """The application's own, whatever they hold."""
    fill_every_type(server)
    server.client.hset("step:1", mapping={"id": "another"})
    server.client.hset("step:2", mapping={"id": "2"})
    server.client.hset("step:orphan", mapping={"id": "2"})
    server.client.set("step:3", "text")
    digest = server.digest()
    assert luamigrate("run", *ANY, url=server.url).code == 3
    result = rolled_back(server, *ANY, "--json")
    assert (result.code, result.totals) == (3, {"found": 57, "removed": 54, "kept": 3, "ignored": 0})
    assert result.document["rules"][0]["kept_reasons"] == {"differs": 2, "partial": 1}
    assert server.digest() == digest


def test_targets_that_equalled_their_source_before_are_gone_exactly_those(server: Instance) -> None:
    """Nobody can tell who made them; nothing is lost with them, and the prompt says so."""
    fill_every_type(server)
    server.client.copy("job:1", "step:1")
    server.client.copy("job:list", "step:list")
    before = snapshot(server.client)
    assert luamigrate("run", *ANY, url=server.url).code == 0
    assert rolled_back(server, *ANY).code == 0
    assert before.keys() - snapshot(server.client).keys() == {b"step:1", b"step:list"}


def test_a_rollback_again_finds_nothing_to_remove(server: Instance) -> None:
    """`missing` is fine here."""
    fill(server.client, jobs=5)
    result = rolled_back(server, "--json")
    assert (result.code, result.totals) == (0, {"found": 9, "missing": 9, "ignored": 0})


def test_what_is_said_at_the_end_is_true_of_other_types_too(server: Instance) -> None:
    """A target of a type that the rule does not concern is still there."""
    for number, write in (("1", server.client.incr), ("2", lambda key: server.client.sadd(key, "x"))):
        write(f"job:{number}")
        server.client.copy(f"job:{number}", f"step:{number}")
    out = rolled_back(server, "--map", "job:*=step:*", "--type", "string").out
    assert "No source of its rule's type has a target any more" in out


def test_what_lives_longer_than_its_source_is_kept(server: Instance) -> None:
    """However little; what is gone sooner, or with it, is not lost."""
    client = server.client
    for number in range(5):
        client.hset(f"job:{number}", "a", "1")
        client.pexpireat(f"job:{number}", 32503680000000)
        client.copy(f"job:{number}", f"step:{number}")
    client.pexpireat("step:1", 32503680000001)
    client.pexpireat("step:2", 32503679999999)
    client.persist("step:3")
    client.persist("job:4")
    result = rolled_back(server, *HASHES, "--json")
    assert (result.code, result.totals) == (3, {"found": 5, "removed": 3, "kept": 2, "ignored": 0})
    assert result.document["rules"][0]["kept_reasons"] == {"expiry": 2}
    assert client.exists("step:1", "step:3") == 2


def test_a_field_that_lives_longer_than_in_its_source_is_kept(server: Instance) -> None:
    """As with keys."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    client = server.client
    for number, moment in (("1", 32503680000001), ("2", 32503679999999), ("3", 32503680000000)):
        for name, at in ((f"job:{number}", 32503680000000), (f"step:{number}", moment)):
            client.hset(name, mapping={"a": "1", "b": "2"})
            client.execute_command("HPEXPIREAT", name, at, "FIELDS", 1, "a")
    assert rolled_back(server, *HASHES, "--json").totals == {"found": 3, "removed": 2, "kept": 1, "ignored": 0}
    assert client.exists("step:1")


def test_a_field_that_is_kept_for_is_named(server: Instance, tmp_path: Path) -> None:
    """Also where the expiries are less than a second apart, and the keys' own are the same."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    for name, at in (("job:1", 32503680000000), ("step:1", 32503680000400)):
        server.client.hset(name, mapping={"a": "1", "b": "2"})
        server.client.execute_command("HPEXPIREAT", name, at, "FIELDS", 1, "a")
    rolled_back(server, *HASHES, "--report", str(tmp_path / "report"))
    line = json.loads((tmp_path / "report").read_text())
    expected = {"word": "kept", "reason": "expiry", "expiring_apart": 1, "expiring_apart_names": ["a"]}
    assert line == {"source": "job:1", "target": "step:1", **expected}


def test_moments_that_pass_while_the_script_runs_are_no_proof(server: Instance) -> None:
    """On Redis 6.2 and 7.0 the clock goes on in a script, and what is past looks alike."""
    client = server.client
    fields: Any = {f"field-{number}": "x" * 70 for number in range(30_000)}
    client.hset("s0", mapping=fields)
    client.hset("t0", mapping=dict(reversed(fields.items())))
    keys = ["s0", "t0"]
    for number in range(1, 10):
        client.set(f"s{number}", "x", px=60)
        client.set(f"t{number}", "x", px=90)
        keys += [f"s{number}", f"t{number}"]
    answers: Any = client.eval(scripts.source("remove"), len(keys), *keys, "any", "1", "0")
    words = {answer if isinstance(answer, bytes) else answer[0] for answer in answers[1:]}
    assert words <= {b"kept", b"gone"}


def test_what_is_kept_is_reported_with_its_reason(server: Instance, tmp_path: Path) -> None:
    """On the screen, in the summary and in the report."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    server.client.hset("step:1", "status", "done")
    server.client.hdel("step:2", "id")
    server.client.hset("step:orphan", "id", "1")
    file = tmp_path / "report.jsonl"
    result = rolled_back(server, "--report", str(file))
    assert result.code == 3
    assert "kept     job:1 -> step:1  differs; contradicts in 1 (status)" in result.out
    assert "3 removed, 1 kept (differs), 1 kept (partial)" in result.out
    assert "Targets that have no source were not looked for (--extra does), and are never deleted." in result.out
    lines = {line["source"]: line for line in map(json.loads, file.read_text().splitlines())}
    assert {name: (line["word"], line["reason"]) for name, line in lines.items()} == {
        "job:1": ("kept", "differs"),
        "job:2": ("kept", "partial"),
    }
    assert lines["job:2"]["missing_names"] == ["id"]


def test_extra_targets_are_named_and_never_deleted(server: Instance) -> None:
    """They are looked for on request."""
    server.client.hset("job:1", "id", "1")
    server.client.hset("step:orphan", "id", "1")
    result = rolled_back(server, *HASHES, "--extra")
    assert result.code == 3
    assert "extra    step:orphan  job:orphan is not there" in result.out
    assert "were not looked for" not in result.out
    assert server.client.exists("step:orphan")


def test_a_dry_run_deletes_nothing_and_says_what_would_be(server: Instance) -> None:
    """With the exit code of the rollback."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    server.client.hset("step:1", "status", "done")
    digest = server.digest()
    dry = luamigrate("rollback", "--dry-run", "--json", url=server.url)
    assert (dry.code, dry.totals) == (3, {"found": 9, "same": 8, "kept": 1, "ignored": 0})
    assert "4 would be deleted" in luamigrate("rollback", "--dry-run", url=server.url).out
    assert server.digest() == digest
    assert rolled_back(server, "--json").totals == {"found": 9, "removed": 8, "kept": 1, "ignored": 0}


def test_the_server_itself_holds_a_dry_run_to_reading(server: Instance) -> None:
    """Where there is EVALSHA_RO, pairs are only ever looked at through it."""
    if server.version < (7, 0):
        pytest.skip("this server has no EVALSHA_RO")
    fill(server.client, jobs=5)
    server.client.config_resetstat()
    luamigrate("rollback", "--dry-run", *HASHES, url=server.url)
    calls: Any = server.client.info("commandstats")
    assert calls["cmdstat_evalsha_ro"]["calls"] == 1 + 1, "and the probe"


def test_without_sources_nothing_is_deleted_and_it_is_said_loudly(server: Instance) -> None:
    """Exit 3: the sources are the proof."""
    server.client.hset("step:1", "id", "1")
    result = rolled_back(server)
    assert result.code == 3
    assert "NO KEY MATCHED ANY RULE" in result.out
    assert server.client.exists("step:1")


def test_without_a_terminal_it_refuses(server: Instance) -> None:
    """Exit 2, and it says what to type; a dry run needs no permission."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    digest = server.digest()
    with pytest.MonkeyPatch.context() as patch, Path(os.devnull).open(encoding="utf-8") as nothing:
        patch.setattr(sys, "stdin", nothing)
        assert_one_line(luamigrate("rollback", url=server.url), 2, "--yes", "terminal")
        assert luamigrate("rollback", "--dry-run", url=server.url).code == 0
    assert server.digest() == digest


def answered(
    server: Instance, answer: bytes | signal.Signals, *options: str, out: int | None = None
) -> tuple[int, str]:
    """Roll back on a terminal and give an answer, if it asks; return exit code and what was shown."""
    controller, terminal = pty.openpty()
    command = (sys.executable, "-m", "luamigrate", "rollback", *options)
    shown: list[bytes] = []
    asked = threading.Event()

    def watch() -> None:
        while chunk := read(controller):
            shown.append(chunk)
            if b"[y/N]" in b"".join(shown):
                asked.set()

    process = subprocess.Popen(
        command,
        env=environment(REDIS_URL=server.url, SETTLE=SHORT),
        stdin=terminal,
        stdout=out or terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509  # no other thread holds a lock that it takes
    )
    os.close(terminal)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = None
    while code is None:
        # A Ctrl-C right behind the prompt may come before anybody listens: people press it again.
        if asked.wait(0.1):
            if isinstance(answer, bytes):
                os.write(controller, answer)
            else:
                process.send_signal(answer)
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(3 if asked.is_set() else 0.1)
    watcher.join(5)
    os.close(controller)
    return code, b"".join(shown).decode()


def take_terminal() -> None:
    """Make standard input the terminal that Ctrl-C comes from, and hear it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def read(descriptor: int) -> bytes:
    """Read from a terminal; nothing once the other side has closed it."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 130), (b"\n", 130), (b"\x03", 130), (b"\x04", 130)])
def test_it_asks_with_the_numbers_and_no_means_no(any_server: Instance, answer: bytes, code: int) -> None:
    """No, nothing, Ctrl-C, and the end of input."""
    fill(any_server.client, jobs=5)
    luamigrate("run", url=any_server.url)
    any_server.client.hset("step:1", "status", "done")
    digest = any_server.digest()
    ended, shown = answered(any_server, answer)
    assert ended == code
    question = f"Delete 8 targets at {any_server.url}, each equal to its source, whoever made it? 1 would be kept."
    assert question in " ".join(shown.split())
    assert "nothing was deleted" in shown
    assert "Traceback" not in shown
    assert any_server.digest() == digest


def test_yes_means_yes(any_server: Instance) -> None:
    """The targets are compared once more in the moment in which they are deleted."""
    fill(any_server.client, jobs=5)
    digest = any_server.digest()
    luamigrate("run", url=any_server.url)
    code, shown = answered(any_server, b"y\n")
    assert code == 0
    assert "Targets deleted                    9" in shown
    assert any_server.digest() == digest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_the_prompt_means_no(any_server: Instance, number: signal.Signals) -> None:
    """Exit 130 and nothing is deleted."""
    fill(any_server.client, jobs=5)
    luamigrate("run", url=any_server.url)
    digest = any_server.digest()
    ended, shown = answered(any_server, number)
    assert ended == 130
    assert "nothing was deleted" in shown
    assert any_server.digest() == digest


def test_where_there_is_nothing_to_delete_it_does_not_ask(any_server: Instance, tmp_path: Path) -> None:
    """With the exit code, the report and the extra targets of a rollback that does not ask."""
    any_server.client.hset("job:1", "a", "1")
    any_server.client.hset("job:2", "a", "1")
    any_server.client.hset("step:2", "a", "2")
    any_server.client.hset("step:orphan", "a", "1")
    report = tmp_path / "report"
    outcomes = []
    for yes in ((), ("--yes",)):
        with (tmp_path / "out").open("w+", encoding="utf-8") as out:
            code, _ = answered(
                any_server, b"", *HASHES, *yes, "--extra", "--json", "--report", str(report), out=out.fileno()
            )
            out.seek(0)
            outcomes.append((code, json.load(out)["totals"], sorted(report.read_text().splitlines())))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][:2] == (3, {"found": 2, "missing": 1, "kept": 1, "extra": 1, "ignored": 0})
    assert len(outcomes[0][2]) == 2


def test_the_report_is_of_what_was_done(any_server: Instance, tmp_path: Path) -> None:
    """After no, what the look found; after yes, what the rollback did."""
    file = tmp_path / "report"
    fill(any_server.client, jobs=5)
    luamigrate("run", url=any_server.url)
    any_server.client.hset("step:1", "status", "done")
    for answer, word in ((b"n\n", "same"), (b"y\n", "removed")):
        answered(any_server, answer, "--report", str(file), "--report-all")
        words = Counter(json.loads(line)["word"] for line in file.read_text().splitlines())
        assert words == {word: 8, "kept": 1}


@pytest.mark.parametrize(("answer", "totals"), [(b"y\n", "removed"), (b"n\n", "same")])
def test_there_is_one_document_whatever_the_answer(
    any_server: Instance, tmp_path: Path, answer: bytes, totals: str
) -> None:
    """On standard output; question and human lines are elsewhere."""
    fill(any_server.client, jobs=5)
    luamigrate("run", url=any_server.url)
    with (tmp_path / "out").open("w+", encoding="utf-8") as out:
        answered(any_server, answer, "--json", out=out.fileno())
        out.seek(0)
        document = json.load(out)
    assert document["totals"] == {"found": 9, totals: 9, "ignored": 0}
    assert (document["dry_run"], document["interrupted"]) == (totals == "same", totals == "same")


def test_big_targets_are_unlinked(server: Instance) -> None:
    """UNLINK frees in the background; DEL would hold the server."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    server.client.config_resetstat()
    rolled_back(server)
    calls: dict[str, Any] = {name: stats["calls"] for name, stats in server.client.info("commandstats").items()}
    assert calls["cmdstat_unlink"] == 9 + 1, "and the probe's, of a name that is not there"
    assert "cmdstat_del" not in calls


def test_it_needs_these_permissions_and_no_others(server: Instance) -> None:
    """UNLINK is named where it is denied."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    allowed = commands(server, [*ANYTHING, *READING])
    keys = ["job:*", "step:*", "jobs:*", "steps:*"]
    with user(server, allowed, keys) as url:
        assert_one_line(luamigrate("rollback", "--yes", url=url), 4, "permissions", "UNLINK")
    with user(server, [*allowed, "unlink"], keys) as url:
        if server.version >= (7, 0):
            refused = luamigrate("rollback", "--yes", "--extra", url=url)
            assert_one_line(refused, 4, "permissions", "evalsha_ro")
            assert server.client.exists("step:1")
        assert luamigrate("rollback", "--yes", url=url).code == 0
    assert not server.client.exists("step:1")
