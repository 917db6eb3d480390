"""The campaign's judge: what a sound run leaves passes, and whatever is spoilt breaks the rule that it should."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaos import worlds
from chaos.application import Application, Reader
from chaos.judging import Case, judge
from chaos.processes import Ended, reported
from chaos.worlds import FAR_MS, Stored, World
from tests.conftest import luamigrate
from tests.instances import Instance

pytestmark = pytest.mark.single_server("it is the judge that is judged")

SEED = 7
SOURCE, TARGET = b"job:mine", b"step:mine"
OTHER, BEFORE = b"job:older", b"step:older"


@pytest.fixture
def sound(any_server: Instance, tmp_path: Path) -> Callable[[], Case]:
    """Make a sound run; return what there is to judge at the moment of asking."""
    site: Any = SimpleNamespace(servers=lambda: [any_server], is_one=True, has_moments=any_server.has_field_expiries)
    world = worlds.draw(random.Random(SEED), most=40, with_moments=False)
    for keys in (world.sources, world.bystanders):
        for name in [name for name, stored in keys.items() if worlds.expires_meanwhile(stored)]:
            del keys[name]
    at = int(time.time() * 1000) + FAR_MS
    world.sources |= dict.fromkeys((SOURCE, OTHER), Stored("hash", {b"a": b"1", b"b": b"2"}, at))
    world.targets[BEFORE] = Stored("hash", {b"a": b"other"}, at)
    worlds.write(any_server.client, world.keys)
    runs = [final_run(any_server, [option for naming in world.namings for option in naming.options], tmp_path)]
    application = Application(site, world, SEED, creates=False)

    def case() -> Case:
        return Case(
            site=site,
            world=world,
            application=application,
            reader=Reader(site, world, application, SEED),
            faults=[],
            last_loss=-math.inf,
            runs=runs,
            fills="",
            validates=True,
            ignores_expiry=False,
            max_pause=5.0,
            found=worlds.observe([any_server.client], with_moments=False),
        )

    return case


def final_run(server: Instance, names: list[str], folder: Path) -> Ended:
    """Run the command line, and return what came of it as the campaign has it of a process."""
    report, began = folder / "report", time.monotonic()
    arguments = ("run", *names, "--json", "--settle", "0", "--report", str(report))
    result = luamigrate(*arguments, url=server.url)
    return Ended(arguments, result.code, result.out, result.err, reported(report), began, time.monotonic())


def test_what_a_sound_run_leaves_breaks_no_rule(sound: Callable[[], Case]) -> None:
    """Whatever the targets were before."""
    assert judge(sound()) == []


@pytest.mark.parametrize(
    ("command", "rule"),
    [
        (("DEL", SOURCE), 1),
        (("HSET", SOURCE, "a", "2"), 1),
        (("PERSIST", SOURCE), 1),
        (("SET", "nobody", "1"), 1),
        (("DEL", BEFORE), 2),
        (("HSET", BEFORE, "b", "2"), 2),
        (("PERSIST", BEFORE), 2),
        (("DEL", TARGET), 3),
        (("HDEL", TARGET, "a"), 3),
        (("PEXPIRE", TARGET, 10**9), 3),
        (("SET", "luamigrate:staging:0:{step}", "1"), 5),
    ],
    ids=str,
)
def test_what_is_spoilt_breaks_its_rule(
    any_server: Instance, sound: Callable[[], Case], command: tuple[Any, ...], rule: int
) -> None:
    """Which is named."""
    any_server.client.execute_command(*command)
    assert rule in {number for number, _ in judge(sound())}


@pytest.mark.parametrize(
    ("lie", "rule"),
    [
        ({"out": ""}, 6),
        ({"code": 0}, 6),
        ({"code": None}, 8),
        ({"err": "Traceback (most recent call last):"}, 8),
        ({"report": {}}, 3),
    ],
    ids=str,
)
def test_a_run_that_lies_breaks_its_rule(sound: Callable[[], Case], lie: dict[str, Any], rule: int) -> None:
    """Which is named."""
    case = sound()
    assert rule in {number for number, _ in judge(replace(case, runs=[replace(case.final, **lie)]))}


def test_a_reader_notes_a_half_made_target(any_server: Instance, sound: Callable[[], Case]) -> None:
    """By value, and by expiry."""
    case = sound()
    for command in (("HDEL", TARGET, "a"), ("PERSIST", TARGET)):
        any_server.client.execute_command("COPY", SOURCE, TARGET, "REPLACE")
        assert look(any_server, case) == []
        any_server.client.execute_command(*command)
        assert look(any_server, case)


def look(server: Instance, case: Case) -> list[str]:
    """Have the reader read one target."""
    only = World(case.world.namings, {SOURCE: case.world.sources[SOURCE]})
    site: Any = SimpleNamespace(client=server.another_client)
    reader = Reader(site, only, case.application, SEED)
    reader.step()
    assert reader.reads == 1
    return reader.seen
