"""A follow that cuts over in a trial: started, asked at its control socket, and started again where it has ended."""

from __future__ import annotations

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from chaos.cutover_sites import Place
from chaos.faults import LEASES
from chaos.processes import Ended, Tool
from luamigrate.model.rules import RESERVED
from tests.clusters import surviving, wait_until

FLAG, VALUE = "flag", "new"
RECORDS = RESERVED + b"cutover:*"
SIDES = {"cutover": "targets", "back": "sources"}
"""Which side the application writes once a word has been obeyed."""
SECONDS_TO_OBEY = 200.0
SECONDS_TO_STAND = 60.0
SECONDS_BETWEEN = 0.05
SECONDS_TO_BE_MADE_ANEW = 0.5
BEHIND = 100
"""Changed names that are not mirrored yet: fewer than the application writes at a time."""
OLD_MS = 1000
PHASES = ("following", "mirroring back")
LEFT_MS = 500
"""The lease of a process that has died ends so soon, that a trial be short."""
STARTS = 4
"""So often a follow is started, until it has to have come up."""
CONFIRMED = "--yes"
Document = dict[str, Any]

HOOK = """echo "$LUAMIGRATE_EVENT" >> {folder}/hooks
if rm "{folder}/kill-$LUAMIGRATE_EVENT" 2>/dev/null; then kill -9 "$(cat {folder}/pid)"; fi
"""


@dataclass(frozen=True)
class State:
    """What a server has of a cut-over."""

    flag: bytes | None
    records: dict[bytes, dict[bytes, bytes]]

    @property
    def side(self) -> str | None:
        """The side that flag and record name; None where they disagree."""
        flipped = self.flag == VALUE.encode()
        agree = [record.get(b"value") == self.flag for record in self.records.values()] == [True] * flipped
        return (SIDES["cutover"] if flipped else SIDES["back"]) if agree else None


def state_of(place: Place) -> State:
    """Read what a server has of a cut-over, in one moment."""

    def read() -> State:
        with place.site.client() as client:
            names = list(client.scan_iter(RECORDS, count=1000))
            transaction = client.pipeline(transaction=True).get(FLAG)
            for name in names:
                transaction.hgetall(name)
            flag, *records = transaction.execute()
            return State(flag, {name: each for name, each in zip(names, records, strict=True) if each})

    return surviving(read)


class Unfit(AssertionError):
    """The follow is not what the trial needs of it: that breaks a rule, and ends the trial."""


@dataclass
class Course:
    """The follow that is under way, and what has ended so far."""

    place: Place
    folder: Path
    arguments: tuple[str, ...]
    ended: list[Ended] = field(default_factory=list)
    stragglers: set[str] = field(default_factory=set)
    """The names, the old ones, that were reported as such."""
    notes: list[str] = field(default_factory=list)
    """What happened, in turn."""

    def __post_init__(self) -> None:
        (self.folder / "hook.sh").write_text(HOOK.format(folder=self.folder), encoding="utf-8")
        self._began = time.monotonic()
        self.tool = self._started(())

    @property
    def socket(self) -> Path:
        """The control socket of the follow."""
        return self.folder / "control"

    def note(self, text: str) -> None:
        """Remember something for who looks into a trial that broke a rule."""
        self.notes.append(f"{time.monotonic() - self._began:6.2f} s  {text}")

    def _started(self, more: tuple[str, ...]) -> Tool:
        hook = f"sh {self.folder}/hook.sh"
        hooks = [text for event in ("cutover", "flip", "straggler") for text in (f"--on-{event}", hook)]
        arguments = (*self.arguments, "--control", str(self.socket), *hooks, *more)
        tool = Tool(self.folder, self.place.url, arguments, f"follow-{len(self.ended)}")
        (self.folder / "pid").write_text(str(tool.pid), encoding="utf-8")
        self.note(f"started, pid {tool.pid} {' '.join(more)}")
        return tool

    def end(self) -> Ended:
        """Wait until it has ended, and take what came of it."""
        (own,) = self.tool.wait()
        self.ended.append(own)
        self._note_stragglers(own.report)
        self.note(f"ended: exit code {own.code}")
        return own

    def _note_stragglers(self, words: dict[str, str]) -> None:
        self.stragglers |= {name for name, word in words.items() if word.split()[0] == "straggler"}

    def see_to_stragglers(self) -> None:
        """Delete the old names that stragglers wrote, as somebody does who has decided against them."""
        told = self.ask("status")
        if not told or not told.get("stragglers"):
            return
        self._note_stragglers(self.tool.words)
        self.note(f"{told['stragglers']} stragglers, of which these are deleted: {sorted(self.stragglers)}")
        for name in self.stragglers:
            surviving(partial(self.place.site.primary.client.unlink, name))
        time.sleep(SECONDS_TO_BE_MADE_ANEW)

    def ask(self, word: str, seconds: float = SECONDS_TO_OBEY) -> Document | None:
        """Send a word, and return what is answered; None where nobody answers, or goes away."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(seconds)
            try:
                client.connect(str(self.socket))
                client.sendall(f"{word}\n".encode())
                with client.makefile("rb") as lines:
                    return dict(json.loads(lines.readline()))
            except TimeoutError:
                raise Unfit(f"{word} is not answered in {seconds} s") from None
            except (OSError, json.JSONDecodeError):
                return None

    def wish(self, word: str, meanwhile: Any) -> Document | None:
        """Send a word, and do something until it is answered."""
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.ask, word)
            meanwhile()
            told = answer.result()
        brief = {} if told is None else {name: told.get(name) for name in ("error", "side", "attempts", "freeze_ms")}
        self.note(f"{word}: {brief or 'no answer'}")
        return told

    def stand(self, *, written: bool = False) -> Document:
        """Wait until it is in step, starting it again where it has ended; return how it stands.

        Where an application writes meanwhile, it is enough that it follows and is hardly behind.
        """
        deadline, starts = time.monotonic() + SECONDS_TO_STAND, 0
        while time.monotonic() < deadline:
            if not self.tool.is_under_way:
                starts += 1
                if starts > STARTS:
                    raise Unfit(f"it does not come up again: {self.ended[-1].err[-800:]}")
                self._start_again()
            told = self.ask("status")
            stands = told and told.get("phase") in PHASES and told["age_ms"] < OLD_MS and not told["stopping"]
            if told and stands and (_is_in_step(told) or (written and told["dirty"] < BEHIND)):
                return told
            time.sleep(SECONDS_BETWEEN)
        raise Unfit(f"it does not come into step: {told}")

    def _start_again(self) -> None:
        ended = self.end()
        with suppress(FileNotFoundError):
            self.socket.unlink()
        surviving(partial(_end_leases, self.place))
        confirmed = CONFIRMED in ended.err or CONFIRMED in ended.arguments
        self.tool = self._started((CONFIRMED,) if confirmed else ())
        wait_until(lambda: not self.tool.is_under_way or self.socket.exists())

    def stop(self) -> Ended:
        """End it as an operator does."""
        self.tool.send(signal.SIGTERM)
        return self.end()

    def hooks(self) -> list[str]:
        """Return the events of which the hooks were told."""
        file = self.folder / "hooks"
        return file.read_text(encoding="utf-8").split() if file.exists() else []


def _is_in_step(told: Document) -> bool:
    # Names that are left alone until somebody decides are not in step, and never will be.
    waits = told["dirty"] or told["in_flight"] or told["waiting_for"]
    return bool(told["in_step"] or (told.get("stragglers") and not waits))


def _end_leases(place: Place) -> None:
    for name in place.site.primary.client.scan_iter(LEASES, count=1000):
        place.site.primary.client.pexpire(name, LEFT_MS)
