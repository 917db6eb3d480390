"""Sentinels: the primary that they name, another one in mid-run, and what is said where they name none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import trustme

from luamigrate import Error, Limits, Summary, Tls, Waiting, connect, migrate, plan
from luamigrate.cli.embedded import free_port, throwaway_server
from luamigrate.server.connect import connect_by, pool_for
from luamigrate.server.url import ServerUrl
from tests import binaries
from tests.cli.test_bad_input import SECRET, assert_one_line
from tests.clusters import wait_until
from tests.conftest import Result, luamigrate
from tests.migration.test_run import fill
from tests.sentinels import SERVICE, Watched, port_of, sentinel, watched
from tests.tls import has_tls, own_tls_options

COMMANDS = (("run",), ("verify",), ("rollback", "--yes"), ("check",))
JOBS = 300
JOBS_ONLY = plan([("job:*", "step:*", "hash")])
ANY_NAME = next(name for name in reversed(binaries.NAMES) if isinstance(binaries.find(name), Path))
ANY_BINARY = Path(binaries.find(ANY_NAME))


@pytest.fixture(scope="module")
def primary() -> Iterator[str]:
    """Give the URL of a server that Sentinels of the test's own name."""
    with throwaway_server(ANY_BINARY) as url, redis.Redis.from_url(url) as client:
        fill(client, jobs=20)
        yield url


@pytest.fixture(scope="module")
def port(primary: str) -> Iterator[int]:
    """Give the port of a Sentinel that anybody may ask."""
    with sentinel(ANY_BINARY, port_of(primary)) as own:
        yield own


def run_through(servers: Watched, trouble: Callable[[], None]) -> Result:
    """Run, and cause trouble once some of it is done."""
    fill(servers.primary, jobs=JOBS)
    assert servers.primary.execute_command("WAIT", 1, 10_000) == 1

    def act() -> None:
        wait_until(lambda: int(servers.primary.dbsize()) > JOBS + 50)
        trouble()

    thread = threading.Thread(target=act)
    thread.start()
    options = ("--map", "job:*=step:*", "--batch-size", "20", "--max-rate", "250", "--patience", "15")
    result = luamigrate("run", *options, "--json", url=servers.url)
    thread.join()
    return result


def assert_all_is_on_the_new_primary(servers: Watched, result: Result) -> None:
    """Assert that a run noticed it, started again, and finished on the primary that Sentinels name."""
    assert result.code == 0, result.err
    assert any("another server process answered in mid-run" in text for text in result.document["warnings"])
    assert result.totals["found"] == JOBS
    jobs = [f"job:{number}" for number in range(JOBS)]
    for job in jobs:
        assert servers.replica.hgetall(job) == servers.replica.hgetall(job.replace("job", "step")) != {}


def test_a_primary_that_is_killed(server_name: str) -> None:
    """What was copied since the replica last heard is copied again, to the replica that has taken over."""
    with watched(server_name) as servers:
        result = run_through(servers, servers.kill_primary)
        assert_all_is_on_the_new_primary(servers, result)
        assert "waiting for the server" in result.err


@pytest.mark.parametrize("command", [("run",), ("check",)])
def test_a_primary_that_is_killed_before_we_begin(command: tuple[str, ...]) -> None:
    """The replica that takes over is waited for, from before the Sentinel knows that the primary is gone."""
    with watched(ANY_NAME) as servers:
        fill(servers.primary, jobs=20)
        assert servers.primary.execute_command("WAIT", 1, 10_000) == 1
        servers.kill_primary()
        result = luamigrate(*command, "--json", url=servers.url)
        assert result.document["error"] is None
        assert result.err.count("waiting for the server: ") >= 1
        assert f"(primary 127.0.0.1:{port_of_client(servers.replica)})" in result.err


def port_of_client(client: redis.Redis) -> int:
    """Return the port that a client connects to."""
    return int(client.connection_pool.connection_kwargs["port"])


def test_a_primary_that_is_replaced_while_it_is_up(server_name: str) -> None:
    """It goes on taking writes for many seconds, and they would be lost."""
    with watched(server_name) as servers:
        result = run_through(servers, servers.fail_over)
        assert_all_is_on_the_new_primary(servers, result)
        assert "the Sentinels name another primary" in result.err


def test_a_primary_that_is_replaced_after_the_last_key() -> None:
    """Who is the primary is asked once more before the end."""
    with watched(ANY_NAME) as servers:
        fill(servers.primary, jobs=50)
        assert servers.primary.execute_command("WAIT", 1, 10_000) == 1
        summary = Summary(JOBS_ONLY)
        with connect(servers.url) as server:
            for batch in migrate(server, JOBS_ONLY, settle=0, limits=Limits(patience=15)):
                summary.add(batch)
                if summary.totals.counts.total() == 50 and not summary.warnings:
                    servers.fail_over()
                    wait_until(servers.is_failed_over)
        assert any("another server process answered" in text for text in summary.warnings)
        assert servers.replica.exists(*(f"step:{number}" for number in range(50))) == 50


def test_the_primary_that_the_sentinels_name(primary: str, port: int) -> None:
    """Every command reaches it, and says where it is; the database stands at the end."""
    url = f"sentinel://localhost:{port}/{SERVICE}"
    for command in COMMANDS:
        result = luamigrate(*command, url=url)
        assert (result.code, result.err) == (0, "")
        assert f"at {url} (primary 127.0.0.1:{port_of(primary)})" in result.out
        assert luamigrate(*command, "--json", url=url).document["server"]["url"] == url
    assert luamigrate("run", "--allow-empty", "--json", url=f"{url}/3").totals["found"] == 0
    assert_one_line(luamigrate("run", url=f"{url}/99"), 1, "out of range; give another number at the end of the URL")


def test_a_server_beside_the_primary_is_reached_by_its_address(primary: str, port: int) -> None:
    """No Sentinel is asked about it."""
    with connect(f"sentinel://localhost:{port}/{SERVICE}/3") as deployment:
        (entry,) = deployment.primaries
        with entry.at("localhost", port_of(primary)) as other:
            assert (other.url, other.identity) == (f"redis://localhost:{port_of(primary)}", entry.identity)
        with pytest.raises(Error, match="cannot connect"):
            entry.at("127.0.0.1", free_port())


def test_prepared_connections_serve_a_second_time(primary: str, port: int) -> None:
    """A rollback connects before it asks, and again to delete."""
    for url in map(ServerUrl.parse, (f"sentinel://127.0.0.1:{port}/{SERVICE}", primary)):
        pool = pool_for(url)
        for _ in range(2):
            with connect_by(pool, url, Waiting()) as server:
                assert server.node_for(b"job:1").call("EXISTS", "job:1").answer() == 1


def test_a_sentinel_with_a_password_of_its_own(primary: str) -> None:
    """In the environment or in the URL, where it is not shown; for a user, too."""
    user = f"user watcher on >{SECRET} +sentinel|master +sentinel|get-master-addr-by-name"
    with sentinel(ANY_BINARY, port_of(primary), f"requirepass {SECRET}", user, password=SECRET) as own:
        url = f"sentinel://localhost:{own}/{SERVICE}"
        assert luamigrate("run", url=url, env={"SENTINEL_PASSWORD": SECRET}).code == 0
        for options in ("", "sentinel_username=watcher&"):
            result = luamigrate("run", url=f"{url}?{options}sentinel_password={SECRET}")
            assert result.code == 0
            assert SECRET not in result.out
            assert f"at {url}?{options}sentinel_password=*** (primary" in result.out
        assert_one_line(luamigrate("run", url=url), 1, f"{own} asks for a password", "SENTINEL_PASSWORD")
        wrong = luamigrate("run", url=f"{url}?sentinel_password=wrong")
        assert_one_line(wrong, 1, f"{own} refuses the user or password", "SENTINEL_PASSWORD")
        named = luamigrate("run", url=f"{url}?sentinel_username=nobody&sentinel_password={SECRET}")
        assert_one_line(named, 1, f"{own} refuses the user or password", "(requirepass), leave the user out")
        twice = luamigrate("run", url=f"{url}?sentinel_password={SECRET}", env={"SENTINEL_PASSWORD": f"{SECRET}\n"})
        assert twice.code == 0
        two = luamigrate("run", url=f"{url}?sentinel_password={SECRET}", env={"SENTINEL_PASSWORD": "another"})
        assert_one_line(two, 2, "two passwords", "SENTINEL_PASSWORD")
        assert_one_line(luamigrate("run", url=url, env={"SENTINEL_PASSWORD": " "}), 2, "SENTINEL_PASSWORD", "blank")


def test_a_sentinel_that_needs_no_password_is_given_one(port: int) -> None:
    """It says so: perhaps it was meant for the data servers."""
    url = f"sentinel://localhost:{port}/{SERVICE}"
    result = luamigrate("run", url=url, env={"SENTINEL_PASSWORD": SECRET})
    assert_one_line(result, 1, f"localhost:{port} has no password", "SENTINEL_PASSWORD")


def test_the_primary_has_a_password_of_its_own(primary: str, port: int, tmp_path: Path) -> None:
    """It is the one of the URL, of the environment, or of a file."""
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    url = f"sentinel://{{}}localhost:{port}/{SERVICE}"
    with redis.Redis.from_url(primary) as client:
        client.config_set("requirepass", SECRET)
        try:
            assert luamigrate("run", url=url.format(f":{SECRET}@")).code == 0
            assert luamigrate("run", url=url.format(""), env={"REDIS_PASSWORD": SECRET}).code == 0
            assert luamigrate("run", "--password-file", str(file), url=url.format("default@")).code == 0
            assert_one_line(luamigrate("run", url=url.format("")), 1, "asks for a password", "REDIS_PASSWORD")
            wrong = luamigrate("run", url=url.format(""), env={"REDIS_PASSWORD": "wrong"})
            assert_one_line(wrong, 1, "refuses the user or password")
        finally:
            client.config_set("requirepass", "")


def test_no_sentinel_knows(primary: str, port: int) -> None:
    """Each is named, with its reason."""
    nobody = free_port()
    services = (f"localhost:{nobody}", f"localhost:{port}", f"localhost:{port_of(primary)}")
    result = luamigrate("run", url=f"sentinel://{','.join(services)}/other")
    said = (
        "no Sentinel knows a primary of 'other' that is up",
        f"localhost:{nobody} cannot be asked: Error 111",
        f"localhost:{port} watches no service of that name, but {SERVICE}",
        f"localhost:{port_of(primary)} is no Sentinel",
    )
    assert_one_line(result, 1, *said)


def test_a_primary_that_is_down() -> None:
    """Whether the Sentinels know that already or not."""
    nobody = free_port()
    with sentinel(ANY_BINARY, nobody) as own, redis.Redis(port=own, protocol=2) as client:
        url = f"sentinel://localhost:{own}/{SERVICE}"
        for command in COMMANDS:
            at_once = luamigrate(*command, "--patience", "0", url=url)
            assert_one_line(at_once, 1, f"127.0.0.1:{nobody}")
        wait_until(lambda: client.execute_command("SENTINEL MASTER", SERVICE)["is_sdown"])
        for patience in ("0", "0.3"):
            result = luamigrate("run", "--patience", patience, url=url)
            assert_one_line(result, 1, f"localhost:{own} ", f"127.0.0.1:{nobody}", " is down")
            assert ("waiting for the server: " in result.out) == (patience != "0")


def test_a_user_whom_the_sentinel_does_not_permit_the_question(primary: str) -> None:
    """The line says what to grant."""
    with sentinel(ANY_BINARY, port_of(primary), f"user watcher on >{SECRET} +ping") as own:
        url = f"sentinel://localhost:{own}/{SERVICE}?sentinel_username=watcher&sentinel_password={SECRET}"
        assert_one_line(luamigrate("run", url=url), 1, f"localhost:{own} does not answer this user", "+sentinel|master")


@pytest.mark.parametrize(
    ("url", "fragments"),
    [
        ("sentinel://localhost", ["service", "sentinel://localhost:26379/mymaster"]),
        ("sentinel://localhost/", ["service"]),
        ("sentinel:///mymaster", ["must look like"]),
        ("sentinel://a,,b/mymaster", ["must look like"]),
        ("sentinel://a:0/mymaster", ["port 0"]),
        ("sentinel://a:x,b/mymaster", ["must look like"]),
        ("sentinel://a/mymaster/zero", ["must be a number"]),
        ("sentinel://a/mymaster/0/1", ["must be a number"]),
        ("sentinel://a/mymaster?db=1", ["'db'", "unknown"]),
        ("sentinel://a/mymaster?tls=yes", ["'tls'", "no good value"]),
        ("sentinel://a/mymaster?sentinel_password=", ["'sentinel_password'", "no good value"]),
        (f"sentinel://a/mymaster?password={SECRET}", ["--password-file"]),
        (f"sentinel://:{SECRET}/x@a/mymaster", ["%2F"]),
        ("sentinels://a/mymaster", ["must look like", "sentinel://"]),
    ],
)
def test_a_url_of_sentinels_that_is_none(url: str, fragments: list[str]) -> None:
    """It is a usage error, in one line."""
    assert_one_line(luamigrate("run", url=url), 2, "the URL", *fragments)


def test_a_sentinel_in_place_of_a_server_is_recognised(port: int) -> None:
    """The line says what to write instead."""
    assert_one_line(luamigrate("run", url=f"redis://localhost:{port}"), 4, "Sentinel", "sentinel://host:port/service")


def test_sentinels_and_servers_over_tls(tmp_path: Path) -> None:
    """Any option of TLS asks for it, or the URL; who does not ask for it does not get in."""
    binary = binaries.find(binaries.SYSTEM)
    if not isinstance(binary, Path) or not has_tls(binary):
        pytest.skip(f"no server with TLS on this system: {binary}")
    authority, port = trustme.CA(), free_port()
    options = (*own_tls_options(authority, tmp_path), "--tls-auth-clients", "no", "--tls-replication", "yes")
    lines = [f"{name.removeprefix('--')} {value}" for name, value in zip(options[::2], options[1::2], strict=True)]
    ca = str(tmp_path / "ca.pem")
    with (
        throwaway_server(binary, "--tls-port", str(port), *options),
        sentinel(binary, port, *lines, ssl=True, ssl_ca_certs=ca) as own,
    ):
        url = f"sentinel://localhost:{own}/{SERVICE}"
        result = luamigrate("run", "--allow-empty", url=url, env={"TLS_CA": ca})
        assert (result.code, result.err) == (0, "")
        assert f"(primary 127.0.0.1:{port})" in result.out
        insecure = luamigrate("run", "--allow-empty", "--tls-insecure", "--json", url=url)
        assert (insecure.code, len(insecure.document["warnings"])) == (0, 1)
        assert_one_line(luamigrate("run", url=f"{url}?tls=true"), 1, "certificate", "--tls-ca FILE")
        assert_one_line(luamigrate("run", url=url), 1, f"localhost:{own} cannot be asked")
        with connect(url, tls=Tls(ca=Path(ca))) as deployment:
            (entry,) = deployment.primaries
            with entry.at("localhost", port) as other:
                assert other.url == f"rediss://localhost:{port}"
