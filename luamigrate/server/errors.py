"""Errors between us and a server: what the client library raised, in one line that says what to do."""

from __future__ import annotations

import errno
import re
import ssl

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from luamigrate.model.errors import Error, Refused, printable

_NO_TLS = "does it speak TLS? If not, leave TLS out (redis://)"
_NO_CERTIFICATE = "does it want a certificate of ours? --tls-cert FILE"
_OTHER_NAME = "give the host by a name that its certificate is for"
_ABOUT_CERTIFICATE = {9: "is the clock right here?", 10: "have it renewed", 62: _OTHER_NAME, 64: _OTHER_NAME}
"""What to do about a certificate, by OpenSSL's code: not yet valid, expired, other host name, other address."""

_NOBODY_THERE = frozenset(
    (errno.ECONNREFUSED, errno.ENOENT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ETIMEDOUT)
)
"""System errors where nobody answers; ENOENT is that of a socket's file."""

_WITH_TLS = ("rediss:", "valkeys:")
_WITHOUT_TLS = ("redis:", "valkey:")
"""Beginnings of URLs that ask for TLS, and that do not."""

FIRST_COMMAND = "HELLO"
"""The first command that every server gets."""

NO_USERS = "where it knows a password and no users (requirepass), leave the user out"

_ARGUMENTS = re.compile(r", with args beginning with:.*", re.DOTALL)


class ScriptMissing(Error):
    """The server does not have the script (any more)."""


class ConnectionLost(Error):
    """The connection was lost before the answer came; the command may have run or not."""


class NotReady(Error):
    """The server is not ready yet, or another one is about to take its place: waiting helps."""


class Unreachable(Error):
    """Nobody answers at the address."""


class Answered(Error):
    """The server answered with an error."""


class UnknownCommand(Refused):
    """The server does not know a command: it is too old, or the command is renamed or kept back."""

    def __init__(self, text: str) -> None:
        super().__init__(f"version: {text}; luamigrate needs Redis 6.2 or Valkey 7.2 at least, with EVALSHA and COPY")
        self.text = text


class Redirected(Answered):
    """Another node of the cluster has the key, or will have it."""

    def __init__(self, text: str, host: str, port: int, *, asking: bool) -> None:
        super().__init__(text)
        self.host, self.port = host, port
        self.asking = asking
        """Whether the key is only being moved there."""


class Unsettled(Answered):
    """The cluster cannot answer at present: a slot is being moved, or a node is down."""


class ServerChanged(Error):
    """Another server process answers now, or may do so: it does not know the former one's cursors."""


class ClosedAt(redis.ConnectionError):
    """The connection was closed after this command had been sent."""

    def __init__(self, error: redis.ConnectionError, command: str) -> None:
        super().__init__(str(error))
        self.command = command


def asks_for_login(error: RedisError) -> bool:
    """Tell whether a server demands a login before it answers."""
    text = str(error)
    return isinstance(error, AuthenticationError) or "NOAUTH" in text or "HELLO must be called" in text


def passes(error: RedisError) -> bool:
    """Tell whether the server is only busy at present, and waiting helps."""
    return isinstance(error, (BusyLoadingError, MasterDownError)) or str(error).startswith("BUSY")


def explain(error: Exception, url: str = "", password: str | None = None, user: str | None = None) -> Error:  # noqa: C901, PLR0912  # a table of cases
    """Turn an error of the client library into one line that says what to do, without the password."""
    text = error_text(error, password)
    at = f" at {url}" if url else ""
    match error:
        case NoScriptError():
            return ScriptMissing(text)
        case ResponseError() if "SELECT is not allowed" in text:
            return Refused(f"permissions: {text}; a cluster has database 0 only: give none in the URL")
        case ResponseError() if isinstance(error, NoPermissionError) or "NOPERM" in text:
            return Refused(f"permissions: {text}; grant it (ACL SETUSER)")
        case RedisError() if "Authentication required" in text or "HELLO must be called" in text:
            return Error(f"the server{at} asks for a password: --password-file, REDIS_PASSWORD, or in the URL")
        case RedisError() if "without any password configured" in text:
            return Error(f"the server{at} has no password: give none")
        case AuthenticationError():
            hints = ["no password was given"] if user and not password else []
            hints += [NO_USERS] if user else []
            return Error("; ".join((f"the server{at} refuses the user or password: {text}", *hints)))
        case MovedError() | AskError():
            return Redirected(
                f"moved to another node: {text}", error.host, int(error.port), asking=not isinstance(error, MovedError)
            )
        case ClusterDownError() | TryAgainError():
            return Unsettled(f"the cluster{at} cannot answer at present: {text}")
        case BusyLoadingError():
            return NotReady("the server is loading its data set: run again when it has finished")
        case ResponseError() if text.startswith("BUSY"):
            return NotReady(f"the server{at} is busy with somebody's script: {text}")
        case ResponseError() if url and "DB index is out of range" in text:
            return Answered(f"the server{at} answered: {text}; give another number at the end of the URL, from 0 on")
        case redis.TimeoutError():
            hint = f"; {_NO_TLS}" if url.startswith(_WITH_TLS) else ""
            return Unreachable(f"no answer from the server{at}: {text}{hint}")
        case redis.ConnectionError() if not url:
            return ConnectionLost(f"the connection was lost: {text}")
        case redis.ConnectionError() | OSError():
            kind = Unreachable if is_nobody_there(error) else Error
            return kind(f"cannot connect to the server{at}: {advise(error, text, url)}")
        case ResponseError() if "unknown command" in text.lower():
            return UnknownCommand(text)
        case _:
            code = getattr(error, "status_code", None)
            return Answered(f"the server{at} answered: {f'{code} ' if code else ''}{text}")


def is_nobody_there(error: Exception) -> bool:
    """Tell whether an error while connecting means that nobody answers at the address."""
    causes = (error, error.__cause__, error.__context__)
    no_answer = isinstance(error, redis.TimeoutError)
    return no_answer or any(isinstance(cause, OSError) and cause.errno in _NOBODY_THERE for cause in causes)


def error_text(error: Exception, password: str | None) -> str:
    """Return the text of an error, escaped, without the arguments that servers repeat of unknown commands."""
    text = _ARGUMENTS.sub("", str(error)).strip().rstrip(".")
    return printable((text.replace(password, "***") if password else text).encode("utf-8", "surrogateescape"))


def advise(error: Exception, text: str, url: str = "") -> str:
    """Add advice to an error text about connecting."""
    cause = error if isinstance(error, ClosedAt) else error.__cause__ or error.__context__
    # A server that refuses our certificate completes the handshake, and closes before or while we write.
    agreed = "connecting to" not in text
    match cause:
        case ssl.SSLCertVerificationError():
            advice = _ABOUT_CERTIFICATE.get(cause.verify_code, "--tls-ca FILE names an authority to trust")
        case ssl.SSLError() if agreed or "ALERT" in (cause.reason or ""):
            advice = _NO_CERTIFICATE
        case ssl.SSLError():
            advice = _NO_TLS
        case _ if agreed and url.startswith(_WITH_TLS):
            advice = _NO_CERTIFICATE
        case ClosedAt() if cause.command != FIRST_COMMAND:
            advice = f"is there a proxy that does not know {cause.command}?"
        case _ if agreed and url.startswith(_WITHOUT_TLS):
            advice = (
                f"is it a port for TLS? Then use rediss://. Or a proxy that does not know {FIRST_COMMAND} or CLIENT?"
            )
        case _:
            advice = "is it there, and the URL right?"
    return f"{text}; {advice}"
