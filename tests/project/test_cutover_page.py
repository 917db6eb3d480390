"""docs/cutover.md is true: its examples lose nothing in a flip, and what it warns of happens where they are changed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.clusters import wait_until
from tests.instances import Instance
from tests.processes import of_this_test
from tests.project.test_readme import ROOT, blocks
from tests.proxies import cutting

pytestmark = [
    pytest.mark.single_server("the flip is that of one server"),
    pytest.mark.oldest_and_newest,
]

PAGE = (ROOT / "docs" / "cutover.md").read_text(encoding="utf-8")
PYTHON, NODE = "\n\n".join(blocks(PAGE, "python")), "\n".join(blocks(PAGE, "javascript"))
URL = "redis://localhost:6379/0"
MODULES = ROOT / ".venv" / "node" / "node_modules"
WRITERS = 6
ENOUGH = 30
"""Writes of each side."""
COUNTING = """
let done = false, counted = 0;
process.stdin.on("end", () => { done = true; }).resume();
async function work(job) {
  while (!done) { await countRun(job); counted += 1; }
}
Promise.all([0, 1, 2, 3, 4, 5].map((job) => work(String(job)))).then(() => {
  console.log(counted);
  client.disconnect();
});
"""
WRITING_LATER = """
client.once("ready", async () => {
  const prefix = (await client.get("names")) === "new" ? "step:" : "job:";
  client.once("close", () => {
    client.hincrby(prefix + "1", "runs", 1).then(() => "written", (error) => error.name).then((word) => {
      console.log(word);
      client.disconnect();
    });
  });
  await client.client("KILL", "TYPE", "normal", "SKIPME", "no").catch(() => {});
});
"""


@contextmanager
def reached(server: Instance) -> Iterator[str]:
    """Yield the address of a server as the page has it."""
    with cutting(server.url.removeprefix("unix://")) as url:
        yield url


def total(client: Any, prefix: str) -> int:
    """Add up the counters of a side."""
    return sum(int(client.hget(name, "runs") or 0) for name in client.scan_iter(f"{prefix}*", count=1000))


def flip(client: Any, held: int) -> int:
    """Cut over by hand, once so many connections have a write that is held; return the total of the old names then."""
    wait_until(lambda: total(client, "job:") >= ENOUGH)
    client.execute_command("CLIENT", "PAUSE", 20_000, "WRITE")
    wait_until(lambda: sum("b" in each["flags"] for each in client.client_list()) >= held)
    counted = total(client, "job:")
    packet = client.pipeline(transaction=False)
    packet.execute_command("CLIENT", "UNPAUSE")
    for name in client.scan_iter("job:*", count=1000):
        packet.restore(name.replace(b"job", b"step", 1), 0, client.dump(name))
    packet.set("names", "new")
    packet.execute_command("CLIENT", "PAUSE", 20_000, "WRITE")
    packet.execute()
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    client.execute_command("CLIENT", "UNPAUSE")
    wait_until(lambda: total(client, "step:") >= counted + ENOUGH)
    return counted


def load(url: str) -> dict[str, Any]:
    """Carry out the Python of the page, and return its names."""
    names: dict[str, Any] = {}
    exec(compile(PYTHON.replace(URL, url), "cutover.md", "exec"), names)  # noqa: S102
    return names


class Writers:
    """Threads that count for as long as they are not left, each with the page's Python for itself."""

    def __init__(self, count: Callable[[dict[str, Any]], Callable[[str], Any]], url: str) -> None:
        self.counted, self._done = [0] * WRITERS, threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(each, count(load(url)))) for each in range(WRITERS)]

    def _work(self, number: int, count: Callable[[str], Any]) -> None:
        while not self._done.is_set():
            count(str(number))
            self.counted[number] += 1

    def __enter__(self) -> list[int]:
        for thread in self._threads:
            thread.start()
        return self.counted

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def resending(names: dict[str, Any]) -> Callable[[str], Any]:
    """Return the first function of the page, with a client that resends, as one does that is not made from a URL."""
    host, port = names["URL"].removeprefix("redis://").split(":")
    names["client"] = redis.Redis(host, int(port), protocol=2)
    return names["count_run"]  # type: ignore[no-any-return]


def by_a_script(names: dict[str, Any]) -> Callable[[str], Any]:
    """Return the script of the page, called again when its connection was closed."""

    def count(job: str) -> Any:
        while True:
            with suppress(redis.ConnectionError):
                return names["count_run_by_a_script"](job)

    return count


@pytest.mark.parametrize("form", ["count_run", "count_run_strictly", "by_a_script"])
def test_the_python_of_the_page_loses_nothing(server: Instance, form: str) -> None:
    """Every form: what is acknowledged is there, once; the old names are left as they were at the flip."""
    count: Any = by_a_script if form == "by_a_script" else lambda names: names[form]
    with reached(server) as url:
        with Writers(count, url) as counted:
            at_the_flip = flip(server.client, WRITERS)
        assert total(server.client, "job:") == at_the_flip
        assert total(server.client, "step:") == sum(counted)


def test_a_python_client_that_resends_writes_the_old_names_after_the_flip(server: Instance) -> None:
    """Each write that was held, and so it is lost: that is what the page warns of."""
    with reached(server) as url:
        with Writers(resending, url) as counted:
            at_the_flip = flip(server.client, WRITERS)
        assert total(server.client, "job:") == at_the_flip + WRITERS
        assert total(server.client, "step:") == sum(counted) - WRITERS


def test_a_pool_puts_a_new_connection_under_a_write_whose_flag_was_read_before(server: Instance) -> None:
    """Without a word; a client with a single connection says so."""
    never = Retry(NoBackoff(), 0)
    for options, is_told in (({}, False), ({"single_connection_client": True}, True)):
        with redis.Redis.from_url(server.url, protocol=2, retry=never, **options) as client:
            assert client.get("names") is None
            server.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            if is_told:
                with pytest.raises(redis.ConnectionError):
                    client.hincrby("job:1", "runs", 1)
            else:
                assert client.hincrby("job:1", "runs", 1) == 1


@pytest.fixture
def node() -> str:
    """Return Node; a visible skip where it or the library is absent."""
    binary = shutil.which("node")
    if not binary or not (MODULES / "ioredis").is_dir():
        pytest.skip("node or ioredis is not installed: the examples in JavaScript are not tried")
    return binary


@contextmanager
def running(node: str, script: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a script by Node."""
    file = folder / "example.js"
    file.write_text(script, encoding="utf-8")
    environment = os.environ | {"NODE_PATH": str(MODULES)}
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        command = (node, str(file))
        process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        yield stack.enter_context(of_this_test(process))


def ended(process: subprocess.Popen[str]) -> str:
    """Have it come to its end, and return what it printed."""
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, ""), err
    return out.strip()


def without_options(script: str) -> str:
    """Leave out what the page tells the library not to do."""
    changed = re.sub(r"new Redis\(URL, \{.*\}\)", "new Redis(URL)", script)
    assert changed != script
    return changed


@pytest.mark.parametrize("resends", [False, True])
def test_the_node_of_the_page_loses_nothing_unless_the_library_resends(
    server: Instance, node: str, tmp_path: Path, resends: bool
) -> None:
    """All of it goes over one connection, so all writes that were sent are held with it."""
    with reached(server) as url:
        script = NODE.replace(URL, url) + COUNTING
        with running(node, without_options(script) if resends else script, tmp_path) as process:
            at_the_flip = flip(server.client, 1)
            counted = int(ended(process))
    strayed = total(server.client, "job:") - at_the_flip
    assert (strayed > 0) is resends
    assert total(server.client, "step:") == counted - strayed


@pytest.mark.parametrize("queues", [False, True])
def test_ioredis_keeps_a_name_for_the_next_connection_unless_it_is_told_not_to(
    server: Instance, node: str, tmp_path: Path, queues: bool
) -> None:
    """What was decided on a connection that is closed meanwhile."""
    with reached(server) as url:
        script = NODE.replace(URL, url) + WRITING_LATER
        with running(node, without_options(script) if queues else script, tmp_path) as process:
            assert (ended(process) == "written") is queues
    assert total(server.client, "job:") == queues
