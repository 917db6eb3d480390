"""What real software wrote: jobs of RQ, pickled and compressed values and all."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import redis
from rq import Queue, Retry
from rq.job import Job

from tests.conftest import run
from tests.instances import Instance, assert_same_expiry, read_expiry

PLAN = """
[[rule]]
source = "rq:job:*"
target = "q:job:*"
type = "hash"
[[rule]]
source = "rq:queues"
target = "q:queues"
type = "set"
[[rule]]
source = "rq:scheduled:*"
target = "q:scheduled:*"
type = "zset"
"""


def send(address: str, attachment: bytes) -> str:
    """Do nothing; RQ only needs its name."""
    return address + str(len(attachment))


@pytest.mark.single_server("RQ writes keys of several slots in one transaction")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_jobs_of_rq_are_copied_exactly(server: Instance, tmp_path: Path) -> None:
    """Every job equals its source by the server's own digest, expiry included, and RQ can read the copy."""
    client = redis.Redis.from_url(server.url)
    queue = Queue("mail", connection=client)
    for number in range(60):
        attachment = bytes(range(256)) * (number % 7 * 100)
        queue.enqueue(send, f"user-{number}@example.com", attachment, retry=Retry(max=3), meta={"n": number})
    queue.enqueue_in(dt.timedelta(hours=1), send, "later@example.com", b"")
    for job in queue.get_jobs()[:10]:
        job.cancel()
        client.expire(job.key, 1000)
    (tmp_path / "plan.toml").write_text(PLAN)

    result = run(server, "--plan", str(tmp_path / "plan.toml"), "--json")

    assert result.code == 0
    sources = list(client.scan_iter("rq:job:*"))
    assert result.totals == {"found": len(sources) + 2, "copied": len(sources) + 2, "ignored": 0}
    assert len(sources) == 61
    for source in [*sources, b"rq:queues", b"rq:scheduled:mail"]:
        target = source.replace(b"rq:", b"q:", 1)
        assert server.digest_value(source) == server.digest_value(target)
        assert_same_expiry(read_expiry(client, source), read_expiry(client, target), target)
    copied = Job(sources[0].decode().removeprefix("rq:job:"), connection=client)
    copied.restore(client.hgetall(sources[0].replace(b"rq:", b"q:", 1)))
    assert copied.func_name == "tests.migration.test_rq.send"
    client.close()
