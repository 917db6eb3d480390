"""TLS: certificates and keys that the user gives, checked before anything connects."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Never

from luamigrate.model.errors import UsageError

NO_FILE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP))
"""Errors for a value that names no file at all, perhaps because it is the secret itself."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How TLS is spoken, beyond what a URL says; files are in PEM format."""

    ca: Path | None = None
    """Authorities to trust besides the system's."""
    cert: Path | None = None
    """Our own certificate, where the server asks for one."""
    key: Path | None = None
    """The key of our certificate, where it is not in the same file."""
    insecure: bool = False
    """Whether any certificate will do: then anybody between here and the server can read and change everything."""


def tls_settings(tls: Tls, *, spoken: bool) -> dict[str, Any]:
    """Return the client's settings for TLS. Raises UsageError where TLS is not `spoken`, or a file is bad."""
    files = {"--tls-ca": tls.ca, "--tls-cert": tls.cert, "--tls-key": tls.key}
    given = [*(name for name, path in files.items() if path), *(["--tls-insecure"] if tls.insecure else [])]
    if given and not spoken:
        raise UsageError(f"{given[0]}: TLS needs a URL that begins with rediss:// or sentinel://")
    if tls.key and not tls.cert:
        raise UsageError("--tls-key needs --tls-cert (in the environment: TLS_KEY needs TLS_CERT)")
    if tls.ca and tls.insecure:
        raise UsageError("--tls-insecure verifies no certificate: it excludes --tls-ca")
    _refuse_bad_files(tls)
    names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
    settings: dict[str, Any] = {name: str(path) for name, path in zip(names, files.values(), strict=True) if path}
    return settings | ({"ssl_cert_reqs": "none"} if tls.insecure else {})


def _refuse_bad_files(tls: Tls) -> None:
    """Raise UsageError for files that would fail at each connection."""
    scratch = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for option, path in (("--tls-ca (TLS_CA)", tls.ca), ("--tls-cert (TLS_CERT)", tls.cert)):
        if path:
            _read(option, "certificate in PEM format", partial(scratch.load_verify_locations, path))
    if tls.cert:
        option = "--tls-key (TLS_KEY)" if tls.key else "--tls-cert (TLS_CERT)"
        load = partial(scratch.load_cert_chain, tls.cert, tls.key, password=_refuse_passphrase)
        _read(option, "key in PEM format that fits the certificate", load)


def _read(option: str, what: str, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError:
        raise UsageError(f"{option} names a file that holds no {what}") from None
    except (OSError, ValueError) as error:
        raise unreadable(option, error, f"the {what.partition(' ')[0]} itself") from None


def unreadable(option: str, error: Exception, instead: str) -> UsageError:
    """Return the error for a file that cannot be read.

    The value of the option is not shown, for it may be the secret itself, as `instead` says.
    """
    if not isinstance(error, OSError) or error.errno in NO_FILE:
        return UsageError(f"{option} names no file (does it hold {instead}?)")
    return UsageError(f"{option} names a file that cannot be read: {error.strerror}")


def _refuse_passphrase() -> Never:
    raise UsageError("--tls-key, --tls-cert: the key is encrypted, and nobody is asked for its passphrase")
