"""The options that say which server it is, and how to get in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str,
    typer.Option(
        envvar="REDIS_URL",
        metavar="URL",
        help="The server: redis://[user:password@]host[:port][/database], rediss:// for TLS (or valkey://, "
        "valkeys://), unix://[…@]/path[?db=N], or the Sentinels that know it: "
        "sentinel://[…@]host[:port][,host[:port]…]/service[/database]"
        "[?tls=true][&sentinel_username=…][&sentinel_password=…]; their password may also be in SENTINEL_PASSWORD.",
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        envvar="REDIS_PASSWORD_FILE",
        metavar="FILE",
        help="The password of the URL's user: the first line of FILE. Or set REDIS_PASSWORD to the password itself.",
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        envvar="TLS_CA",
        metavar="FILE",
        help="Authorities (PEM) to trust besides the system's. With sentinel://, each of these options asks for TLS.",
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option("--tls-cert", envvar="TLS_CERT", metavar="FILE", help="The certificate (PEM) to show to the server."),
]
TlsKey = Annotated[
    Path | None,
    typer.Option("--tls-key", envvar="TLS_KEY", metavar="FILE", help="Its key, where that is not in the same file."),
]
TlsInsecure = Annotated[
    bool,
    typer.Option(
        "--tls-insecure/--no-tls-insecure",
        envvar="TLS_INSECURE",
        help="Take any certificate: anybody between here and the server can then read and change everything.",
    ),
]
