"""The words cutover, back and finish: their answers come when they are done, and nobody else waits for that."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from luamigrate.cli import control_client, control_socket, control_words
from luamigrate.cli.control_words import Words
from luamigrate.cli.options import environment
from luamigrate.cli.progress import Progress
from luamigrate.cli.signals import Interruption
from luamigrate.model.cutover import Side, Wish
from luamigrate.model.following import Followed, Phase
from luamigrate.model.limits import Limits
from luamigrate.model.plans import BUILT_IN
from luamigrate.model.status import Command
from luamigrate.model.summary import Batch
from tests.cli.test_control import fill
from tests.clusters import wait_until
from tests.conftest import luamigrate
from tests.controlled import Controlled, answer_to
from tests.instances import Instance
from tests.processes import of_this_test

STEPS = ("10:00:00 cutting over", "10:00:01 flipped")


class Served:
    """A follow as its control sees it: the test is the work, and grants what is wished for."""

    def __init__(self, path: Path, command: Command = Command.FOLLOW, *, cuts_over: bool = True) -> None:
        self.path = path
        self.interruption, self.progress = Interruption(), Progress(command)
        self.words = Words(command, self.interruption, self.progress, Limits(), cuts_over=cuts_over)
        self.control = self.interruption.control(lambda _: None, lambda: False)
        self._clients = ExitStack()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Serve the socket; clients are closed with it."""
        with self._clients, control_socket.listening(self.path, self.words.answer):
            yield

    def client(self, line: str = "") -> socket.socket:
        """Return a client that has sent a line."""
        client = self._clients.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(20)
        client.connect(str(self.path))
        client.sendall(line.encode() + b"\n" if line else b"")
        return client

    def ask(self, line: str) -> Any:
        """Return the answer to a line."""
        return answer_to(self.client(line))

    def wishing(self, wish: Wish) -> socket.socket:
        """Return a client whose wish the work has."""
        client = self.client(wish)
        wait_until(lambda: self.control.wish() is wish)
        return client

    def note(self, side: Side = Side.TARGETS) -> None:
        """Tell how the follow stands, as it does several times a second."""
        followed = Followed(phase=Phase.MIRRORING_BACK, in_step=True, side=side, steps=STEPS, freeze_ms=3.5, attempts=1)
        self.progress.note(Batch(BUILT_IN[0], followed=followed))

    def grant(self, wish: Wish) -> None:
        """Grant a wish as the work does."""
        self.control.granted(wish, "")
        self.note()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Give a follow that listens."""
    served = Served(tmp_path / "control.sock")
    with served.listening():
        yield served


def is_silent(client: socket.socket) -> bool:
    """Tell whether nothing has been answered yet, a few turns of the server later."""
    client.settimeout(0.2)
    try:
        client.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        client.settimeout(20)
    return False


@pytest.mark.parametrize("wish", Wish)
def test_the_answer_comes_when_it_is_done(served: Served, wish: Wish) -> None:
    """Others are answered meanwhile, and told what is under way; the answer has the figures of afterwards."""
    assert served.ask("status")["wish"] is None
    client = served.wishing(wish)
    status = served.ask("status")
    assert (status["wish"], "done" in status) == (wish, False)
    assert served.ask("set max-rate=5")["done"] is True
    assert is_silent(client)
    served.grant(wish)
    answer = answer_to(client)
    assert answer["done"] is True
    assert (answer["wish"], answer["side"], answer["phase"]) == (None, "targets", "mirroring back")
    assert (answer["steps"], answer["freeze_ms"], answer["attempts"]) == (list(STEPS), 3.5, 1)
    assert served.control.wish() is None
    client.sendall(b"status\n")
    assert "done" not in answer_to(client)


def test_figures_from_before_are_not_told_as_those_of_afterwards(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work notes them some time after it has granted a wish; if it does not, the answer comes all the same."""
    served.note(Side.SOURCES)
    client = served.wishing(Wish.CUTOVER)
    served.control.granted(Wish.CUTOVER, "")
    assert is_silent(client)
    served.note(Side.TARGETS)
    assert answer_to(client)["side"] == "targets"
    monkeypatch.setattr(control_words, "SECONDS_TO_NOTE", 0.1)
    client = served.wishing(Wish.BACK)
    served.control.granted(Wish.BACK, "")
    assert answer_to(client)["done"] is True


def test_what_is_refused_is_answered_with_the_reason(served: Served) -> None:
    """And can be wished for again."""
    for _ in range(2):
        client = served.wishing(Wish.CUTOVER)
        served.control.granted(Wish.CUTOVER, "5 attempts were late")
        assert answer_to(client) == {"error": "5 attempts were late"}


def test_a_second_wish_is_told_at_once_which_one_is_under_way(served: Served) -> None:
    """Whichever it is; what is granted that nobody has wished for changes nothing."""
    client = served.wishing(Wish.CUTOVER)
    for wish in Wish:
        error = f"'cutover' is under way: '{wish}' can be asked for once that has ended"
        assert served.ask(wish) == {"error": error}
    served.control.granted(Wish.BACK, "no")
    assert is_silent(client)
    served.grant(Wish.CUTOVER)
    assert answer_to(client)["done"] is True


def test_it_goes_on_if_its_client_leaves(served: Served) -> None:
    """A client that only says no more is answered."""
    served.wishing(Wish.CUTOVER).close()
    assert served.ask("status")["wish"] == "cutover"
    assert served.control.wish() is Wish.CUTOVER
    served.grant(Wish.CUTOVER)
    client = served.wishing(Wish.FINISH)
    client.shutdown(socket.SHUT_WR)
    assert served.ask("status")["wish"] == "finish"
    served.grant(Wish.FINISH)
    assert answer_to(client)["done"] is True
    assert client.recv(1) == b""


def test_one_that_waits_makes_room_for_nobody(served: Served) -> None:
    """Though it has been silent for longest; and what it sends meanwhile is answered afterwards."""
    client = served.wishing(Wish.CUTOVER)
    client.sendall(b"status\n")
    for _ in range(2 * control_socket.MOST_CLIENTS):
        assert served.ask("status")["wish"] == "cutover"
    served.grant(Wish.CUTOVER)
    with client.makefile("rb") as answers:
        documents = [json.loads(answers.readline()) for _ in range(2)]
    assert [document.get("done") for document in documents] == [True, None]


def test_one_that_floods_while_it_waits_is_answered_and_sent_away(served: Served) -> None:
    """It says more than a line may have; nobody else is delayed."""
    client = served.wishing(Wish.CUTOVER)
    client.sendall(b"x" * 5000)
    assert served.ask("status")["wish"] == "cutover"
    served.grant(Wish.CUTOVER)
    assert answer_to(client)["done"] is True


def test_when_the_work_is_over_a_wish_ends_with_an_error(tmp_path: Path) -> None:
    """Even if the socket is closed in the same moment; and no other one is taken."""
    served = Served(tmp_path / "control.sock")
    with served.listening():
        client = served.wishing(Wish.CUTOVER)
        served.interruption.wishes.close("it was stopped")
        assert served.ask("back") == {"error": "the follow has ended: it was stopped"}
        assert answer_to(client) == {"error": "the follow has ended: it was stopped"}
    served = Served(tmp_path / "control.sock")
    with ExitStack() as stack:
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        with served.listening():
            client.connect(str(served.path))
            client.sendall(b"finish\n")
            wait_until(lambda: served.control.wish() is Wish.FINISH)
            served.control.granted(Wish.FINISH, "")
            served.interruption.over = True
        assert answer_to(client)["done"] is True


def test_one_that_is_stopping_takes_no_wish(served: Served) -> None:
    """It would not come to it."""
    served.ask("stop")
    assert served.ask("cutover") == {"error": "this follow is stopping: it takes no 'cutover' any more"}
    assert served.control.wish() is None


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (Command.RUN, "'{}' is for a follow, and this is a run"),
        (Command.FOLLOW, "this follow has no --flip KEY=VALUE: it does not know '{}'"),
    ],
)
def test_what_cannot_cut_over_says_so_at_once(tmp_path: Path, command: Command, error: str) -> None:
    """A run, and a follow without a flag."""
    served = Served(tmp_path / "control.sock", command, cuts_over=False)
    with served.listening():
        for wish in Wish:
            assert served.ask(wish) == {"error": error.format(wish)}
            assert served.control.wish() is None
        assert "wish" in served.ask("status") or command is Command.RUN
        assert "finish" in served.ask("fly")["error"] or command is Command.RUN


@contextmanager
def doing(served: Served, wish: Wish, act: Callable[[], None]) -> Iterator[None]:
    """Be the work meanwhile: act once a wish has come."""

    def work() -> None:
        wait_until(lambda: served.control.wish() is wish)
        act()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_the_command_waits_and_then_prints_how_it_stands(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than for other words, without a line meanwhile; a refusal is exit code 4."""
    monkeypatch.setattr(control_client, "SECONDS_TO_ANSWER", 0.1)
    waited = threading.Event()

    def grant_late() -> None:
        waited.wait(0.5)
        served.grant(Wish.CUTOVER)

    with doing(served, Wish.CUTOVER, grant_late):
        result = luamigrate("control", str(served.path), "cutover")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("cutover: done\nfollow: at work\n  state         mirroring back, in step\n")
    assert "  writes        the application writes the new names\n" in result.out
    assert f"  last step     {STEPS[-1]}\n  frozen for    3.5 ms\n" in result.out
    with doing(served, Wish.BACK, lambda: served.grant(Wish.BACK)):
        result = luamigrate("control", str(served.path), "back", "--json")
    assert (result.code, json.loads(result.out)["done"]) == (0, True)
    with doing(served, Wish.FINISH, lambda: served.control.granted(Wish.FINISH, "nothing was flipped")):
        result = luamigrate("control", str(served.path), "finish")
    assert (result.code, result.out, result.err) == (4, "", "luamigrate: nothing was flipped\n")


def test_ctrl_c_leaves_the_command_and_the_cut_over_goes_on(served: Served) -> None:
    """It says so, and how to ask."""
    process = of_this_test(
        subprocess.Popen(
            (sys.executable, "-m", "luamigrate", "control", str(served.path), "cutover"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    wait_until(lambda: served.control.wish() is Wish.CUTOVER)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert err == (
        f"luamigrate: 'cutover' goes on without you: 'luamigrate control {served.path} status' says how it stands\n"
    )
    assert served.control.wish() is Wish.CUTOVER


def test_one_that_goes_without_an_answer_is_told_as_such(tmp_path: Path) -> None:
    """It was killed, say: exit code 1, for nobody knows what has come of it."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def leave() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)

        thread = threading.Thread(target=leave)
        thread.start()
        result = luamigrate("control", str(path), "cutover")
        thread.join()
    assert (result.code, result.out) == (1, "")
    assert result.err == f"luamigrate: what listened at {path} has gone without an answer to 'cutover'\n"


def test_stopping_a_follow_ends_what_somebody_waits_for(any_server: Instance, tmp_path: Path) -> None:
    """While it is paused nothing is flipped: whoever waits is told, and the socket is gone."""
    fill(any_server, 3)
    follow = Controlled(any_server.url, tmp_path / "control.sock", "follow", "--flip", "app:names=new")
    follow.wait_until(in_step=True)
    follow.ask("pause")
    follow.wait_until(paused=True)
    with follow.connected() as client:
        client.sendall(b"cutover\n")
        follow.wait_until(wish="cutover")
        assert follow.ask("stop")["done"] is True
        assert "error" in answer_to(client)
    assert follow.end()[0] in (0, 3)
    assert not any_server.client.exists("app:names")
    assert not follow.path.exists()
