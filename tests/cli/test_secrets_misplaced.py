"""Secrets where they do not belong: in place of a file's name, of an argument, in an odd URL, given twice."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from luamigrate import UsageError, connect
from luamigrate.cli.embedded import free_port
from luamigrate.server.connect import pool_for
from luamigrate.server.url import ServerUrl
from tests.cli.test_bad_input import assert_one_line
from tests.cli.test_secrets import COMMANDS, ENCODED, OUTPUTS, SECRET, USER, assert_shows_nothing
from tests.conftest import Result, luamigrate

pytestmark = pytest.mark.single_server("how to get in is the same for every node")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://{USER}:{SECRET}@localhost",
        f"redis://{SECRET}@localhost",
        f"redis://:{ENCODED}@localhost:port",
        f"redis://:{ENCODED}@localhost/zero",
        f"redis://:{ENCODED}@localhost?retry=9",
        f"redis://localhost?password={ENCODED}",
        f"redis://localhost?sentinel_password={ENCODED}",
        f"rediss://:{ENCODED}@localhost?ssl_ca_certs=x",
        f"unix://:{ENCODED}@",
        f"http://:{ENCODED}@localhost",
        f":{ENCODED}@localhost",
        f"redis://:\udcff{ENCODED}@localhost",
        f"sentinel://:{ENCODED}@localhost",
        f"sentinel://localhost/mymaster?sentinel_password={ENCODED}&sentinel_password={ENCODED}",
        f"sentinel://localhost/mymaster?tls={ENCODED}",
        f"sentinel://:{ENCODED}@localhost/mymaster/zero?sentinel_password={ENCODED}",
    ],
)
def test_no_odd_url_shows_a_password(url: str) -> None:
    """It may be anywhere in it."""
    for command in COMMANDS:
        for output in OUTPUTS:
            result = luamigrate(*command, *output, "--no-tls-insecure", url=url)
            assert result.code == 2
            assert_shows_nothing(result.out + result.err)


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (None, ["names no file", "does it hold the password itself, which is for REDIS_PASSWORD?"]),
        (b"", ["first line", "empty"]),
        (b"\nsecond\n", ["first line", "empty"]),
        (b"\r\n", ["first line", "empty"]),
        (b"\xff\xfe\n", ["not UTF-8"]),
    ],
)
def test_odd_password_files_are_usage_errors(tmp_path: Path, content: bytes | None, fragments: list[str]) -> None:
    """The line names the option, and not its value, before anything is printed."""
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    for command in COMMANDS:
        result = luamigrate(*command, "--password-file", str(file), url=f"redis://localhost:{free_port()}")
        assert_one_line(result, 2, "--password-file (REDIS_PASSWORD_FILE)", *fragments)
        assert result.out == ""
        assert str(file) not in result.err
    assert_one_line(luamigrate("run", env={"REDIS_PASSWORD_FILE": str(tmp_path)}), 2, "Is a directory")


PEM = trustme.CA().issue_cert("x").private_key_pem.bytes().decode()
FILES_OF_SECRETS = {
    "TLS_KEY": ("--tls-key", ("--tls-cert", "{cert}")),
    "TLS_CERT": ("--tls-cert", ()),
    "TLS_CA": ("--tls-ca", ()),
    "REDIS_PASSWORD_FILE": ("--password-file", ()),
}
IN_PLACE_OF_A_NAME = {
    "a password": "s3cr3t",
    "a password with a slash": SECRET,
    "a key": PEM,
    "a key in one line": PEM.replace("\n", " "),
    "a key with its line ends written out": PEM.replace("\n", "\\n"),
    "a key without its head": PEM.partition("\n")[2],
    "a key that is cut": PEM[:150],
    "a key far too long for a name": PEM.replace("\n", "") * 10,
    "bytes": "s3cr3t\udcff\x1b[2J",
    "below a file": f"{__file__}/s3cr3t",
}


@pytest.mark.parametrize("value", [pytest.param(text, id=name) for name, text in IN_PLACE_OF_A_NAME.items()])
@pytest.mark.parametrize("variable", FILES_OF_SECRETS)
def test_a_secret_in_place_of_its_files_name_is_not_shown(tmp_path: Path, variable: str, value: str) -> None:
    """Nor any piece of it, however it is given and in whichever output; the line asks whether it is one."""
    option, others = FILES_OF_SECRETS[variable]
    trustme.CA().issue_cert("x").cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    others = tuple(other.format(cert=tmp_path / "cert") for other in others)
    for command in COMMANDS:
        for output in OUTPUTS:
            by_variable = luamigrate(*command, *others, *output, url="rediss://localhost", env={variable: value})
            by_option = luamigrate(*command, *others, *output, option, value, url="rediss://localhost")
            for result in (by_variable, by_option):
                assert_one_line(result, 2, f"{option} ({variable}) names no file (does it hold the ", " itself")
                assert_shows_no_part_of(value, result)


def assert_shows_no_part_of(value: str, result: Result) -> None:
    """Assert that an output shows no piece of a secret that is long enough to identify it."""
    for piece in re.findall(r"[\w+/=]{6,}", value.replace("PRIVATE", "").replace(__file__, "")):
        assert piece not in result.out + result.err


@pytest.mark.parametrize("option", [option for option, _ in FILES_OF_SECRETS.values()])
def test_a_secret_that_the_shell_has_cut_is_not_shown(option: str) -> None:
    """Its pieces are arguments too many; others are named."""
    for value in (PEM[:150], PEM.partition("\n")[2][:150], "correct s3cr3t battery"):
        result = luamigrate("run", option, *value.split(), url="rediss://localhost")
        assert_one_line(result, 2, f"cut the value of {option}")
        assert_shows_no_part_of(value, result)
    assert_one_line(luamigrate("run", "more", "\x1b[2J"), 2, r"more \x1b[2J")


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "sentinel"])
@pytest.mark.parametrize("password", ["a[s3cr3t", "a]s3cr3t", "[s3cr3t]", "[::1]s3cr3t"])
def test_brackets_of_a_password_in_the_url_are_named(scheme: str, password: str) -> None:
    """The line says how to write them, and that is right."""
    place = "localhost/mymaster" if scheme == "sentinel" else "localhost"
    result = luamigrate("run", url=f"{scheme}://user:{password}@{place}")
    assert_one_line(result, 2, "the URL: write the characters", "[ ]", "%5B %5D")
    assert_shows_nothing(result.err)
    pool_for(ServerUrl.parse(f"{scheme}://user:{quote(password)}@{place}"))


def test_two_passwords_are_a_usage_error(tmp_path: Path) -> None:
    """Nobody shall have to guess which one counts."""
    file = tmp_path / "password"
    file.write_text("one")
    both = luamigrate("run", "--password-file", str(file), env={"REDIS_PASSWORD": "two"})
    assert_one_line(both, 2, "REDIS_PASSWORD", "--password-file")
    for url in ("redis://:three@localhost", "sentinel://:three@localhost/mymaster", "unix://:three@/nowhere"):
        assert_one_line(luamigrate("run", url=url, env={"REDIS_PASSWORD": "two"}), 2, "two passwords", "URL")
        assert_one_line(luamigrate("run", "--password-file", str(file), url=url), 2, "two passwords", "URL")
    for blank in ("", "  "):
        assert_one_line(luamigrate("run", env={"REDIS_PASSWORD": blank}), 2, "REDIS_PASSWORD", "blank")
    assert_one_line(luamigrate("run", env={"REDIS_PASSWORD": "\udcff"}), 2, "not UTF-8")
    with pytest.raises(UsageError, match="two passwords"):
        connect("redis://:three@localhost", password="two")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "redis://:hunter2@localhost:1"), "behind --url"),
        (("redis://:hunter2@localhost:1",), "No such command"),
        (("run", "--url", "redis://:hun", "ter2@localhost"), "the value of --url at a space"),
        (("run", "--url=redis://:a@b", "hunter2"), "the value of --url at a space"),
        (("run", "--map", "redis://:hunter2@localhost"), "--map"),
        (("run", "--plan", "redis://:hunter2@localhost"), "plan file"),
        (("check", "--ignore-check", "redis://user:hunter2@localhost"), "--ignore-check"),
    ],
)
def test_a_url_in_the_wrong_place_is_shown_without_its_password(arguments: tuple[str, ...], said: str) -> None:
    """Nor is what may be a piece of it: exit 2 in one line that says what is wrong."""
    result = luamigrate(*arguments)
    assert_one_line(result, 2, said)
    assert "hunter2" not in result.err
    assert "ter2" not in result.err
