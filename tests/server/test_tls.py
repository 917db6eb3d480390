"""TLS: who is trusted, what we show, what is refused, and what is said about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from luamigrate import Tls, UsageError, connect
from luamigrate.cli.embedded import free_port, throwaway_server
from tests import binaries, clusters
from tests.cli.test_bad_input import SECRET, assert_one_line
from tests.clusters import wait_until
from tests.conftest import luamigrate
from tests.instances import Instance, start
from tests.migration.test_run import fill
from tests.tls import context, has_tls, own_tls_options, speaking_tls

pytestmark = pytest.mark.single_server("the proxy stands before one server")

COMMANDS = (("run",), ("verify",), ("rollback", "--yes"), ("check",))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return an authority that nothing trusts by itself."""
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    """Return the file that names the authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "Authority.pem"))
    return str(tmp_path / "Authority.pem")


@pytest.fixture
def ours(authority: trustme.CA, tmp_path: Path) -> tuple[str, str]:
    """Return the files of a certificate for us, and of its key."""
    certificate = authority.issue_cert("luamigrate")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "ours.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "ours.key"))
    return str(tmp_path / "ours.pem"), str(tmp_path / "ours.key")


@contextmanager
def behind_tls(server: Instance, certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> Iterator[str]:
    """Yield the URL of a server behind TLS."""
    with speaking_tls(server.url.removeprefix("unix://"), context(certificate, clients)) as port:
        yield f"rediss://localhost:{port}"


def test_a_certificate_that_is_trusted(server: Instance, authority: trustme.CA, ca: str) -> None:
    """With the authority given, everything runs as ever, and the output names the file."""
    fill(server.client, jobs=50)
    with behind_tls(server, authority.issue_cert("localhost")) as url:
        result = luamigrate("run", "--tls-ca", ca, url=url)
        assert (result.code, result.err) == (0, "")
        assert f"  tls ca         {ca}" in result.out
        for command in COMMANDS:
            by_variable = luamigrate(*command, "--json", url=url, env={"TLS_CA": ca}).document
            assert (by_variable["exit_code"], by_variable["warnings"]) == (0, [])


def test_a_certificate_of_an_unknown_authority(any_server: Instance, authority: trustme.CA) -> None:
    """It is refused without being asked, with the option that would name the authority."""
    with behind_tls(any_server, authority.issue_cert("localhost")) as url:
        for command in COMMANDS:
            assert_one_line(luamigrate(*command, url=url), 1, "cannot connect", "certificate", "--tls-ca FILE")


def test_a_certificate_for_another_name(any_server: Instance, authority: trustme.CA, ca: str) -> None:
    """An authority that is trusted is not enough: neither another name nor the bare address will do."""
    with behind_tls(any_server, authority.issue_cert("elsewhere")) as url:
        assert_one_line(luamigrate("run", "--tls-ca", ca, url=url), 1, "not valid for 'localhost'", "by a name")
    with behind_tls(any_server, authority.issue_cert("localhost")) as url:
        result = luamigrate("run", "--tls-ca", ca, url=url.replace("localhost", "127.0.0.1"))
        assert_one_line(result, 1, "not valid for '127.0.0.1'", "by a name")


@pytest.mark.parametrize(("days", "text"), [((-2, -1), "has expired"), ((1, 2), "is not yet valid")])
def test_a_certificate_out_of_time(
    any_server: Instance, authority: trustme.CA, ca: str, days: tuple[int, int], text: str
) -> None:
    """It is refused, and no authority is asked for."""
    begins, ends = (datetime.now(UTC) + timedelta(days=number) for number in days)
    with behind_tls(any_server, authority.issue_cert("localhost", not_before=begins, not_after=ends)) as url:
        result = luamigrate("run", "--tls-ca", ca, url=url)
        assert_one_line(result, 1, "certificate", text)
        assert "--tls-ca" not in result.err


def test_a_server_that_wants_a_certificate_of_ours(
    any_server: Instance, authority: trustme.CA, ca: str, ours: tuple[str, str], tmp_path: Path
) -> None:
    """Given in two files or one; where it is lacking or of somebody else, the line names the option."""
    certificate, key = ours
    both = tmp_path / "both.pem"
    both.write_bytes(Path(certificate).read_bytes() + Path(key).read_bytes())
    strange = tmp_path / "strange.pem"
    trustme.CA().issue_cert("luamigrate").private_key_and_cert_chain_pem.write_to_path(str(strange))
    with behind_tls(any_server, authority.issue_cert("localhost"), clients=authority) as url:
        trusted = ("--tls-ca", ca, "--allow-empty")
        assert luamigrate("run", *trusted, "--tls-cert", certificate, "--tls-key", key, url=url).code == 0
        assert luamigrate("run", *trusted, url=url, env={"TLS_CERT": str(both)}).code == 0
        assert_one_line(luamigrate("run", *trusted, url=url), 1, "cannot connect", "--tls-cert FILE")
        assert_one_line(luamigrate("run", *trusted, "--tls-cert", str(strange), url=url), 1, "--tls-cert FILE")


@pytest.mark.parametrize("certificate", ["localhost", "elsewhere"])
def test_insecure_takes_any_certificate_and_says_so_loudly(
    any_server: Instance, authority: trustme.CA, certificate: str
) -> None:
    """Before the server is asked, in the output even with --quiet, and in the document."""
    fill(any_server.client, jobs=5)
    with behind_tls(any_server, authority.issue_cert(certificate)) as url:
        for command in COMMANDS:
            result = luamigrate(*command, "--tls-insecure", url=url)
            assert result.code == 0
            assert result.out.index("Warning: --tls-insecure") < result.out.index("Connected to")
            assert "can read and change everything, the password included" in result.out
            assert "  tls insecure   true" in result.out
            quiet = luamigrate(*command, "--tls-insecure", "--quiet", url=url)
            assert "Warning: --tls-insecure" in quiet.out
            (warning,) = luamigrate(*command, "--json", url=url, env={"TLS_INSECURE": "true"}).document["warnings"]
            assert warning.startswith("--tls-insecure")


def test_tls_asked_of_a_server_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within seconds, though such a server just waits for the end of a line."""
    monkeypatch.setattr("luamigrate.server.connect.CONNECT_SECONDS", 0.5)
    name = next(name for name in binaries.NAMES if isinstance(binaries.find(name), Path))
    with throwaway_server(Path(binaries.find(name))) as url:
        result = luamigrate("run", url=url.replace("redis://", "rediss://"))
    assert_one_line(result, 1, "TLS", "redis://")


def test_a_server_with_tls_asked_without_it(any_server: Instance, authority: trustme.CA) -> None:
    """The line says what the URL should begin with."""
    with behind_tls(any_server, authority.issue_cert("localhost")) as url:
        assert_one_line(luamigrate("run", url=url.replace("rediss", "redis")), 1, "cannot connect", "use rediss://")


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--tls-ca", "{none}"], ["--tls-ca (TLS_CA) names no file", "hold the certificate itself?"]),
        (["--tls-ca", "{folder}"], ["--tls-ca (TLS_CA) names a file that cannot be read", "Is a directory"]),
        (["--tls-ca", "{text}"], ["--tls-ca", "no certificate in PEM"]),
        (["--tls-ca", "{key}"], ["--tls-ca", "no certificate in PEM"]),
        (["--tls-cert", "{none}"], ["--tls-cert (TLS_CERT) names no file", "hold the certificate itself?"]),
        (["--tls-cert", "{text}"], ["--tls-cert", "no certificate in PEM"]),
        (["--tls-cert", "{cert}"], ["--tls-cert", "no key in PEM"]),
        (
            ["--tls-cert", "{cert}", "--tls-key", "{none}"],
            ["--tls-key (TLS_KEY) names no file", "hold the key itself?"],
        ),
        (["--tls-cert", "{cert}", "--tls-key", "{text}"], ["--tls-key", "no key in PEM"]),
        (["--tls-cert", "{cert}", "--tls-key", "{other}"], ["--tls-key", "fits the certificate"]),
        (["--tls-cert", "{cert}", "--tls-key", "{locked}"], ["--tls-key", "encrypted"]),
        (["--tls-key", "{key}"], ["--tls-key needs --tls-cert"]),
        (["--tls-insecure", "--tls-ca", "{cert}"], ["--tls-insecure", "--tls-ca"]),
    ],
)
def test_odd_files_are_usage_errors(
    ours: tuple[str, str], tmp_path: Path, options: list[str], fragments: list[str]
) -> None:
    """The line names the option, and not its value, before anything is printed or a server asked."""
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(str(tmp_path / "other.key"))
    (tmp_path / "text.pem").write_text("neither\n")
    (tmp_path / "locked.key").write_bytes(locked(Path(ours[1]).read_bytes()))
    files = {name: str(tmp_path / f"{name}.pem") for name in ("none", "text")}
    files |= {name: str(tmp_path / f"{name}.key") for name in ("other", "locked")}
    files |= {"cert": ours[0], "key": ours[1], "folder": str(tmp_path)}
    given = [option.format(**files) for option in options]
    for command in COMMANDS:
        result = luamigrate(*command, *given, url=f"rediss://localhost:{free_port()}")
        assert_one_line(result, 2, *fragments)
        assert result.out == ""
        assert str(tmp_path) not in result.err


def locked(key: bytes) -> bytes:
    """Encrypt a private key."""
    private = serialization.load_pem_private_key(key, None)
    encryption = serialization.BestAvailableEncryption(b"passphrase")
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize("scheme", ["redis://localhost", "valkey://localhost", "unix:///nowhere"])
def test_an_option_of_tls_for_a_url_without_it_is_a_usage_error(ours: tuple[str, str], scheme: str) -> None:
    """Nobody shall believe that it is spoken."""
    for options in (("--tls-ca", ours[0]), ("--tls-cert", ours[0]), ("--tls-key", ours[1]), ("--tls-insecure",)):
        result = luamigrate("run", *options, url=scheme, env={"TLS_CERT": ours[0]})
        assert_one_line(result, 2, options[0], "rediss://")
    assert_one_line(luamigrate("run", url=scheme, env={"TLS_INSECURE": "1"}), 2, "TLS_INSECURE", "true or false")
    assert_one_line(luamigrate("run", url=scheme, env={"TLS_CA": " "}), 2, "TLS_CA", "blank")


TLS_OF_OTHERS = {"TLS_CA": "/nowhere", "TLS_CERT": "no certificate", "TLS_KEY": SECRET, "TLS_INSECURE": "true"}


def test_tls_in_the_environment_is_ignored_where_the_url_has_none(any_server: Instance) -> None:
    """It may be the application's own: a warning names the variables, and neither their values nor others are shown."""
    fill(any_server.client, jobs=5)
    for command in COMMANDS:
        result = luamigrate(*command, url=any_server.url, env=TLS_OF_OTHERS)
        assert (result.code, result.err) == (0, "")
        assert "Warning: TLS_CA, TLS_CERT, TLS_KEY, TLS_INSECURE ignored: the URL asks for no TLS." in result.out
        assert not {"/nowhere", "no certificate", SECRET, "tls insecure"} & set(re.split(r"  +|\n", result.out))
        document = luamigrate(*command, "--json", url=any_server.url, env={"TLS_KEY": SECRET}).document
        assert [text.partition(":")[0] for text in document["warnings"]] == ["TLS_KEY ignored"]


def test_tls_in_the_environment_counts_where_the_url_has_it(ours: tuple[str, str]) -> None:
    """There a value that is no good is an error."""
    for url in ("rediss://localhost", "valkeys://localhost", "sentinel://localhost/mymaster"):
        result = luamigrate("run", url=url, env={"TLS_CERT": ours[0], "TLS_KEY": SECRET})
        assert_one_line(result, 2, "--tls-key (TLS_KEY) names no file")


def test_valkeys_speaks_tls(any_server: Instance, authority: trustme.CA, ca: str) -> None:
    """As rediss does; where the other end does not, the line says so."""
    with behind_tls(any_server, authority.issue_cert("localhost")) as url:
        valkeys = url.replace("rediss", "valkeys")
        result = luamigrate("run", "--allow-empty", "--tls-ca", ca, url=valkeys)
        assert (result.code, result.err) == (0, "")
        assert f"at {valkeys}" in result.out
        assert_one_line(luamigrate("run", url=url.replace("rediss", "valkey")), 1, "is it a port for TLS?")


@pytest.mark.parametrize(
    ("former", "option"),
    [
        ("ssl_ca_certs=/x", "--tls-ca"),
        ("ssl_certfile=/x", "--tls-cert"),
        ("ssl_keyfile=/x", "--tls-key"),
        ("ssl_cert_reqs=none", "--tls-insecure"),
        ("ssl_cert_reqs=CERT_NONE", "--tls-insecure"),
        ("ssl=true", "begins with rediss://"),
        ("tls=false", "begins with redis://"),
        ("ssl_password=x", "--tls-key must not be encrypted"),
        ("username=me", "redis://user@host"),
        (f"password={SECRET}", "--password-file"),
    ],
)
def test_what_the_url_does_not_say_names_the_option(former: str, option: str) -> None:
    """There is one option for each thing."""
    assert_one_line(luamigrate("run", url=f"rediss://localhost?{former}"), 2, "the URL", option)


@pytest.mark.parametrize("name", ["ssl_cert_reqs", "ssl_check_hostname"])
@pytest.mark.parametrize("value", ["required", "CERT_REQUIRED", "optional", "true", "True", "1", "", "x"])
def test_who_asks_for_what_is_the_default_is_told_to_leave_it_out(name: str, value: str) -> None:
    """Whoever does what the line says has certificates verified, as before."""
    result = luamigrate("run", url=f"rediss://localhost?{name}={value}")
    assert_one_line(result, 2, f"'{name}'", "that is the default, leave it out")
    assert "--tls-insecure" not in result.err


def test_who_wants_no_host_names_compared_is_not_told_to_verify_nothing() -> None:
    """Another option keeps certificates verified."""
    result = luamigrate("run", url="rediss://localhost?ssl_check_hostname=false")
    assert_one_line(result, 2, "give it by a name that its certificate is for")
    assert "--tls-insecure" not in result.err


def test_the_servers_own_tls(authority: trustme.CA, ca: str, ours: tuple[str, str], tmp_path: Path) -> None:
    """Without a proxy: a server that wants a certificate of ours, which is the default of such servers."""
    binary = binaries.find(binaries.SYSTEM)
    if not isinstance(binary, Path) or not has_tls(binary):
        pytest.skip(f"no server with TLS on this system: {binary}")
    port = free_port()
    options = ("--bind", "127.0.0.1", "--tls-port", str(port), *own_tls_options(authority, tmp_path))
    with start(binaries.SYSTEM, *options) as server:
        fill(server.client, jobs=50)
        url, mutual = f"rediss://localhost:{port}/0", ("--tls-cert", ours[0], "--tls-key", ours[1])
        assert luamigrate("run", "--tls-ca", ca, *mutual, "--json", url=url).totals["copied"] == 54
        assert_one_line(luamigrate("verify", "--tls-ca", ca, url=url), 1, "cannot connect", "--tls-cert FILE")
        assert_one_line(luamigrate("verify", *mutual, url=url), 1, "cannot connect", "--tls-ca FILE")
        assert luamigrate("verify", *mutual, "--tls-insecure", url=url).code == 0


def test_the_nodes_of_a_cluster_are_reached_over_tls(authority: trustme.CA, ca: str, tmp_path: Path) -> None:
    """With the settings of the first one, though this one is alone."""
    binary = binaries.find(binaries.SYSTEM)
    if not isinstance(binary, Path) or not has_tls(binary):
        pytest.skip(f"no server with TLS on this system: {binary}")
    port = clusters.free_port()
    own = (*own_tls_options(authority, tmp_path), "--tls-auth-clients", "no", "--tls-cluster", "yes")
    options = ("--bind", "127.0.0.1", "--tls-port", str(port), "--cluster-enabled", "yes", *own)
    with start(binaries.SYSTEM, *options) as server:
        server.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: b"cluster_state:ok" in server.client.execute_command("CLUSTER", "INFO"))
        fill(server.client, jobs=50)
        for name in ("localhost", "127.0.0.1"):
            for command in COMMANDS:
                result = luamigrate(*command, "--tls-ca", ca, url=f"rediss://{name}:{port}")
                assert (result.code, result.err) == (0, "")
        assert_one_line(luamigrate("run", url=f"rediss://localhost:{port}"), 1, "--tls-ca FILE")


def test_another_server_is_reached_with_the_same_tls(any_server: Instance, authority: trustme.CA, ca: str) -> None:
    """And its certificate must be for its own name."""
    certificate = authority.issue_cert("localhost")
    with behind_tls(any_server, certificate) as url, connect(url, tls=Tls(ca=Path(ca))) as deployment:
        (entry,) = deployment.primaries
        port = int(url.rpartition(":")[2])
        with entry.at("localhost", port) as other:
            assert (other.url, other.identity) == (url, entry.identity)
        with pytest.raises(Exception, match=r"not valid for '127\.0\.0\.1'"):
            entry.at("127.0.0.1", port)


def test_the_library_refuses_the_same() -> None:
    """With the same error text."""
    with pytest.raises(UsageError, match="--tls-insecure: TLS needs a URL"):
        connect("redis://localhost", tls=Tls(insecure=True))
