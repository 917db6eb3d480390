"""The freeze: others' writes wait, ours do not, it ends by itself, and who got in between is found out."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, repeat
from pathlib import Path

import pytest
import trustme

from luamigrate import Error, Tls
from luamigrate.scripts import library
from luamigrate.scripts.cutover_calls import FlipReply, flip
from luamigrate.server.changes import read_changes
from luamigrate.server.connection import Connection, ReconnectPolicy
from luamigrate.server.errors import ConnectionLost
from luamigrate.server.freeze import ANSWER_SECONDS, LEAST_MS, MOST_BYTES, Freeze, Held, refused_commands
from tests.clusters import wait_until
from tests.freezing import HARMLESS, LONG_MS, Writers, assert_writes_go_on, assert_writes_wait, connected, frozen
from tests.instances import Instance, start
from tests.liar import Lie, lying
from tests.processes import of_this_test
from tests.proxies import cutting, splitting
from tests.server.test_listener import listening, told_by
from tests.tls import context, speaking_tls

pytestmark = pytest.mark.single_server("each server is paused by itself")

FLAG, RECORD = b"flag", b"luamigrate:cutover:x"


def flipped(main: Connection, freeze: Freeze, changes: bytes) -> FlipReply:
    """Flip the flag as a cut-over does."""
    return flip(main, FLAG, RECORD, value=b"step:", former=None, deadline=freeze.deadline, changes=changes)


def assert_others_wait_and_we_do_not(server: Instance, main: Connection) -> None:
    """Write in a freeze beside others who would, small packets and some that are as big as they may be."""
    server.client.set("theirs", 0)
    with Writers(server) as writers:
        with frozen(main) as freeze:
            writers.wait_until_all_wait()
            before, changes = writers.written, read_changes(main)
            for number in range(1, 21):
                assert main.call("INCR", "ours").answer() == number
            assert [call.answer() for call in [main.call("INCR", "ours") for _ in range(20)]] == list(range(21, 41))
            assert read_changes(main) != changes
            changes = read_changes(main)
            assert (writers.written, freeze.problem, freeze.is_over) == (before, None, False)
            assert flipped(main, freeze, changes) is FlipReply.FLIPPED
            freeze.confirm()
            assert 0 < freeze.end() < LONG_MS
            assert freeze.end() == freeze.end() > 0
        writers.wait_for_more()
    assert int(server.client.get("ours")) == 40  # type: ignore[arg-type]
    assert server.client.get(FLAG) == b"step:"


def test_others_wait_and_we_do_not(server: Instance) -> None:
    """Nobody writes between our packets, nor between the calls of one; then everybody goes on."""
    with connected(server.url) as main:
        assert_others_wait_and_we_do_not(server, main)


@pytest.mark.oldest_and_newest
def test_threads_of_the_server_let_nobody_in_between(server_name: str) -> None:
    """With threads that read and write for it, which are busy here."""
    with (
        start(server_name, "--io-threads", "4", "--io-threads-do-reads", "yes") as server,
        connected(server.url) as main,
    ):
        assert_others_wait_and_we_do_not(server, main)


@pytest.mark.oldest_and_newest
def test_through_tls(server: Instance, tmp_path: Path) -> None:
    """A packet is one record, which the server gets whole."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own: ssl.SSLContext = context(authority.issue_cert("localhost"))
    with speaking_tls(server.url.removeprefix("unix://"), own) as port:
        tls = Tls(ca=tmp_path / "ca.pem")
        with connected(f"rediss://localhost:{port}", tls=tls) as main:
            assert_others_wait_and_we_do_not(server, main)


def test_a_packet_that_is_as_big_as_it_may_be(server: Instance) -> None:
    """It is carried out whole before anybody whose write waits."""
    with connected(server.url) as main, Writers(server) as writers, frozen(main) as freeze:
        writers.wait_until_all_wait()
        before = writers.written
        for _ in range(20):
            main.call("SET", "ours", b"x" * (MOST_BYTES - 200)).answer()
        assert (writers.written, freeze.problem) == (before, None)


@pytest.mark.parametrize(("kind", "milliseconds"), [("WRITE", 60_000), ("ALL", 1500)])
def test_somebody_elses_pause_is_noticed_and_left(server_name: str, kind: str, milliseconds: int) -> None:
    """Nothing is done at a server that holds writes already, then or later; what we have paused is not any more."""
    with start(server_name) as first, start(server_name) as second, ExitStack() as stack:
        one, other = (stack.enter_context(connected(each.url)) for each in (first, second))
        freeze = Freeze([one, other], one, LONG_MS, HARMLESS)
        freeze.prepare()
        second.client.execute_command("CLIENT", "PAUSE", milliseconds, kind)
        with pytest.raises(Held, match=r"somebody else holds? (writes|all)"):
            freeze.begin()
        assert (freeze.left_ms, freeze.is_over) == (0, True)
        assert_writes_go_on(first)
        assert_writes_wait(second)
        if kind == "WRITE":  # the other one ends by itself only
            second.client.execute_command("CLIENT", "UNPAUSE")
        assert_writes_go_on(second)


def test_a_write_that_is_refused_lets_nothing_wait(server: Instance) -> None:
    """Where the harmless write is answered with an error, writes are not held on."""
    with connected(server.url) as main:
        freeze = Freeze([main], main, LONG_MS, ("UNLINK",))
        with pytest.raises(Error, match="wrong number of arguments"):
            freeze.begin()
    assert_writes_go_on(server)


def test_a_pause_that_has_run_out_flips_nothing(server: Instance) -> None:
    """The server's clock decides: what comes too late is refused, and writes have gone on by themselves."""
    with connected(server.url) as main, frozen(main, 60) as freeze:
        changes = read_changes(main)
        wait_until(lambda: freeze.is_over)
        assert flipped(main, freeze, changes) is FlipReply.LATE
        assert_writes_go_on(server)
        assert freeze.end() == 60
    assert not server.client.exists(FLAG, RECORD)


def test_renewals_do_not_lengthen_it(server: Instance) -> None:
    """However often we write, writes wait for as long as was said at first."""
    with connected(server.url) as main, frozen(main, 400) as freeze:
        began = server.client.time()
        packets = 0
        while not freeze.is_over:
            main.call("INCR", "ours").answer()
            packets += 1
        assert_writes_go_on(server)
        seconds, microseconds = (ours - first for ours, first in zip(server.client.time(), began, strict=True))
        assert packets > 3
        assert seconds * 1000 + microseconds / 1000 < 60_000
        assert freeze.problem is None
        assert freeze.left_ms < LEAST_MS


KILLED = """
import sys, time
from luamigrate import connect
from luamigrate.server.freeze import Freeze
main = connect(sys.argv[1]).primaries[0]
Freeze([main], main, 1500, ("UNLINK", "x")).begin()
main.call("INCR", "ours").answer()
print("frozen", flush=True)
time.sleep(60)
"""


def test_it_ends_by_itself_where_the_process_is_killed(server: Instance) -> None:
    """With -9, in the middle."""
    command = (sys.executable, "-c", KILLED, server.url)
    process = of_this_test(subprocess.Popen(command, stdout=subprocess.PIPE))
    assert process.stdout
    with process.stdout as told:
        assert told.readline() == b"frozen\n"
    assert_writes_wait(server)
    process.kill()
    process.wait()
    assert_writes_go_on(server)


EVALSHA, PAUSE = b"EVALSHA\r\n", b"$5\r\nPAUSE\r\n"


def test_who_gets_in_before_the_flip_is_found_by_the_count(server: Instance) -> None:
    """A packet that arrives in pieces lets somebody write: since the changes were read, so nothing is flipped."""
    mark = b""
    with splitting(server.url.removeprefix("unix://"), lambda: mark) as url, connected(url) as main:
        library.register(main, "flip")
        with Writers(server) as writers, frozen(main) as freeze:
            writers.wait_until_all_wait()
            before, changes = writers.written, read_changes(main)
            mark = EVALSHA
            assert flipped(main, freeze, changes) is FlipReply.WRITTEN
            assert writers.written > before
    assert not server.client.exists(FLAG, RECORD)


def test_who_gets_in_behind_the_flip_is_told(server: Instance) -> None:
    """Then the flag is set already, and a barrier behind the flip tells what was written under the names it left."""
    mark = b""
    with splitting(server.url.removeprefix("unix://"), lambda: mark) as url, connected(url) as main:
        library.register(main, "flip")
        with Writers(server) as writers, listening(server, b"theirs") as listener, frozen(main) as freeze:
            writers.wait_until_all_wait()
            told_by(listener)
            changes = read_changes(main)
            assert told_by(listener) == set()
            before, mark = writers.written, PAUSE
            assert flipped(main, freeze, changes) is FlipReply.FLIPPED
            freeze.confirm()
            mark = b""
            assert writers.written > before
            assert told_by(listener) == {b"theirs"}
            writers.wait_until_all_wait()


def test_a_busy_server_is_waited_for(server: Instance) -> None:
    """A write that is answered late, though nobody holds it: writes are held, and for no longer than otherwise."""

    def be_busy(words: list[bytes]) -> Lie | None:
        if words[0] == b"UNLINK":
            time.sleep(3 * ANSWER_SECONDS)
        return None

    with lying(server.url.removeprefix("unix://"), be_busy) as url, connected(url) as main, frozen(main) as freeze:
        assert_writes_wait(server)
        assert 0 < freeze.left_ms < LONG_MS - 2000 * ANSWER_SECONDS
        freeze.end()
        assert_writes_go_on(server)


def test_a_save_that_ends_meanwhile_is_taken_for_a_write(server: Instance) -> None:
    """For the count of changes begins anew with it, so that nothing is known of what was written."""
    server.client.set("a", 1)
    with connected(server.url) as main, frozen(main) as freeze:
        changes = read_changes(main)
        saved = server.client.info("persistence").get("rdb_saves", 0)
        server.client.bgsave()
        wait_until(lambda: not server.client.info("persistence")["rdb_bgsave_in_progress"])
        assert server.client.info("persistence").get("rdb_saves", 1) == saved + 1
        assert flipped(main, freeze, changes) is FlipReply.WRITTEN
        assert flipped(main, freeze, read_changes(main)) is FlipReply.FLIPPED


WRITES: tuple[tuple[str | int, ...], ...] = (
    ("SET", "a", 1),
    ("SET", "a", 1),
    ("HSET", "h", "a", 1),
    ("EXPIRE", "h", 1000),
    ("RPUSH", "l", 1),
    ("LPOP", "l"),
    ("XADD", "x", "*", "a", 1),
    ("EVAL", "return redis.call('INCR', KEYS[1])", 1, "n"),
    ("RENAME", "a", "b"),
    ("DEL", "b"),
    ("FLUSHDB",),
    ("PFADD", "p", 1),
)


def test_every_write_is_another_mark_and_nothing_else_is(server: Instance) -> None:
    """What reads, what changes nothing, and what expires leaves it as it is."""
    with connected(server.url) as main:
        marks = [read_changes(main)]
        for command in WRITES:
            server.client.execute_command(*command)
            marks.append(read_changes(main))
            server.client.get("a")
            server.client.delete("nothing")
            assert read_changes(main) == marks[-1], command
        assert len({*marks}) == len(marks)
        server.client.set("brief", 1, px=1)
        mark = read_changes(main)
        wait_until(lambda: not server.client.exists("brief"))
        wait_until(lambda: not server.client.dbsize() or server.client.info("stats")["expired_keys"] > 0)
        assert read_changes(main) == mark


def test_what_was_sent_is_not_sent_again(server: Instance) -> None:
    """Where the connection is lost before the answer came, the call fails, and the freeze says why it is over."""
    cuts: Iterator[int | None] = repeat(None)
    with cutting(server.url.removeprefix("unix://"), replies=lambda _: next(cuts)) as url, connected(url) as main:
        main.reconnect_by(ReconnectPolicy(patience=10))
        with frozen(main) as freeze:
            cuts = chain([0], repeat(None))
            with pytest.raises(ConnectionLost):
                main.call("INCR", "ours").answer()
            assert freeze.is_over
            assert "was lost while writes were held" in str(freeze.problem)
            # It is not framed any more: it waits for the end, as anybody's.
            call = main.call("INCR", "ours")
            main.flush()
            assert 0 < freeze.end() < LONG_MS
            assert call.answer() == 2
    assert_writes_go_on(server)


def test_a_connection_that_is_closed_by_the_server(server: Instance) -> None:
    """By somebody who kills clients: what comes next says so, and writes go on."""
    with connected(server.url) as main, frozen(main) as freeze:
        server.client.client_kill_filter(_id=str(main.client_id))
        with pytest.raises(ConnectionLost):
            main.call("INCR", "ours").answer()
        assert freeze.is_over
        freeze.end()
        assert_writes_go_on(server)


def test_a_server_that_becomes_a_replica(server_name: str) -> None:
    """Nothing is flipped, and the error says why."""
    with start(server_name) as server, connected(server.url) as main, frozen(main) as freeze:
        changes = read_changes(main)
        server.client.replicaof("127.0.0.1", 1)
        with pytest.raises(Error, match="READONLY"):
            flipped(main, freeze, changes)
        assert not server.client.exists(FLAG, RECORD)
        freeze.end()
        server.client.replicaof("NO", "ONE")
        assert_writes_go_on(server)


def test_a_longer_pause_of_somebody_else_is_not_ended(server: Instance) -> None:
    """Where the server tells how long writes are held."""
    with connected(server.url) as main, frozen(main, 5000) as freeze:
        server.client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        tells = "paused_timeout_milliseconds" in server.client.info("clients")
        freeze.end()
        (assert_writes_wait if tells else assert_writes_go_on)(server)
        server.client.execute_command("CLIENT", "UNPAUSE")


def test_an_odd_answer_is_a_problem(server: Instance) -> None:
    """A server that does not say OK to what goes around a packet may not hold writes."""

    def deny(words: list[bytes]) -> Lie | None:
        return Lie(b"+WELL\r\n") if is_odd and words[:2] == [b"CLIENT", b"PAUSE"] else None

    is_odd = False
    with lying(server.url.removeprefix("unix://"), deny) as url, connected(url) as main:
        with frozen(main) as freeze:
            is_odd = True
            main.call("INCR", "ours").answer()
            with pytest.raises(Error, match="does not answer CLIENT as it should"):
                freeze.confirm()
            assert freeze.is_over
        with pytest.raises(Error, match="does not answer CLIENT PAUSE as it should"):
            Freeze([main], main, LONG_MS, HARMLESS).begin()
        is_odd = False
    assert_writes_go_on(server)


@pytest.mark.parametrize("denied", ["client|pause", "client|unpause", "client|list", "client|kill", None])
def test_what_is_permitted_is_told_without_doing_it(server: Instance, denied: str | None) -> None:
    """By the error of the server; nothing is held meanwhile, and nobody's connection closed."""
    everything = {"client|pause", "client|unpause", "client|list", "client|kill"}
    granted = [f"+{name}" for name in everything - {denied}]
    server.client.execute_command(
        *("ACL", "SETUSER", "careful", "reset", "on", ">secret", "~*", "+hello", "+info", "+multi", *granted)
    )
    try:
        with connected(server.url_for("careful", "secret")) as main:
            refused = refused_commands(main)
            assert list(refused) == ([denied] if denied else [])
            assert all("permissions:" in str(problem) for problem in refused.values())
            assert_writes_go_on(server)
    finally:
        server.client.acl_deluser("careful")
