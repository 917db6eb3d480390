"""A run beside an application that goes on writing to both names."""

from __future__ import annotations

import random
import threading
from collections import Counter

import redis

from luamigrate import connect, migrate, plan
from tests.conftest import luamigrate
from tests.instances import Instance
from tests.test_run import HASHES

JOBS = 2000

# What a careful application does: one atomic write to the old name, and to the new one if it is there.
DUAL_WRITE = """
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then redis.call('HSET', key, ARGV[1], ARGV[2]) end
end
"""


class Application(threading.Thread):
    """Writes to random jobs, under both names, and remembers what it wrote."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.written: dict[int, dict[bytes, bytes]] = {}
        self.done = threading.Event()
        self._url = url

    def run(self) -> None:
        """Write until told to stop."""
        chance = random.Random(7)
        with redis.Redis.from_url(self._url) as client:
            write = client.register_script(DUAL_WRITE)
            while not self.done.is_set():
                number, field = chance.randrange(JOBS), b"f%d" % chance.randrange(8)
                value = b"%d" % chance.randrange(10**9)
                write(keys=[f"job:{number}", f"step:{number}"], args=[field, value])
                self.written.setdefault(number, {})[field] = value


def test_a_run_beside_a_dual_writer_ends_with_everything_the_same(server: Instance) -> None:
    """No word but copied and same, nothing lost, and sources hold just what the application wrote."""
    before = {number: {b"id": b"%d" % number} for number in range(JOBS)}
    pipeline = server.client.pipeline(transaction=False)
    for number in range(JOBS):
        pipeline.hset(f"job:{number}", "id", number)
    pipeline.execute()
    application = Application(server.url)
    application.start()
    words: Counter[str] = Counter()
    try:
        with connect(server.url) as connection:
            for batch in migrate(connection, plan([("job:*", "step:*", "hash")]), batch_size=7):
                words.update(batch.tally.counts)
    finally:
        application.done.set()
        application.join()
    assert words == {"copied": JOBS}
    assert len(application.written) > 10
    again = luamigrate("run", *HASHES, "--json", url=server.url)
    assert again.totals == {"found": JOBS, "same": JOBS, "ignored": 0}
    for number, fields in before.items():
        expected = fields | application.written.get(number, {})
        assert server.client.hgetall(f"job:{number}") == server.client.hgetall(f"step:{number}") == expected
