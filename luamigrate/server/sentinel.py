"""Sentinels: asking them for the primary, and noticing when they name another one."""

from __future__ import annotations

import math
import os
import time
from contextlib import closing, suppress
from typing import Any

from redis.client import Redis
from redis.connection import ConnectionPool
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.sentinel import Sentinel

from luamigrate.model.errors import Error, printable
from luamigrate.server.connection import Connection
from luamigrate.server.errors import (
    NO_USERS,
    ConnectionLost,
    NotReady,
    Unreachable,
    advise,
    error_text,
    is_nobody_there,
)
from luamigrate.server.identity import facts_of_pairs
from luamigrate.server.url import address

SECONDS_BETWEEN_QUESTIONS = 1.0
"""At least, between two times that Sentinels are asked."""
NO_SENTINEL = "is no Sentinel"


class SentinelPrimary(Connection):
    """The primary that Sentinels name. They are asked regularly whether they still name it.

    A primary that has been replaced may go on taking writes for twenty seconds; these are lost.
    """

    _asked_next = -math.inf

    def _explain(self, error: Exception) -> Error:
        problem = super()._explain(error)
        # Whom Sentinels name, and who is not there or just going, will be replaced.
        is_going = isinstance(error.__cause__ or error.__context__ or error, ConnectionResetError)
        return NotReady(str(problem)) if is_going or isinstance(problem, Unreachable) else problem

    @property
    def whereabouts(self) -> str:
        """The URL of the Sentinels, and the primary's address."""
        return f"{self.url} (primary {address(*self._primary)})"

    def read_next(self) -> None:
        """Read the answer to the oldest call under way; connect to another primary where Sentinels name one."""
        if time.monotonic() >= self._asked_next and self._is_replaced():
            self.recover(ConnectionLost("the Sentinels name another primary"))
        else:
            super().read_next()

    def confirm(self) -> None:
        """Ask the Sentinels now whether it is still the primary."""
        self._asked_next = -math.inf
        self.keep_in_touch()

    def _pool_of_this_server(self) -> ConnectionPool:
        return self._pool_at(*self._primary)

    @property
    def _primary(self) -> tuple[str, int]:
        connection: Any = self._connection
        return connection.host, connection.port

    def _is_replaced(self) -> bool:
        """Ask the Sentinels; where they do not know at present, nothing has changed."""
        pool: Any = self._pool
        began = time.monotonic()
        try:
            return bool(pool.get_master_address() != self._primary)
        except _HandedOver:
            return True
        except Error:
            return False
        finally:
            now = time.monotonic()
            self._asked_next = now + max(SECONDS_BETWEEN_QUESTIONS, 10 * (now - began))


class _HandedOver(NotReady):
    """A failover is under way: a replica is becoming the primary."""


class Sentinels(Sentinel):
    """Several Sentinels, asked one after the other for the primary."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary. Raises Error, with the answer of each Sentinel."""
        said, problems = [], set[type[Error]]()
        for sentinel in list(self.sentinels):
            place = sentinel.connection_pool.connection_kwargs
            try:
                with closing(sentinel):
                    primary = _ask(sentinel, service_name)
            except _HandedOver as problem:
                raise _HandedOver(f"the Sentinel {_shown(address(place['host'], place['port']))} {problem}") from None
            except Error as problem:
                problems.add(type(problem))
                said.append(f"{_shown(address(place['host'], place['port']))} {problem}")
            else:
                # Who has answered is asked first the next time: the others may cost time.
                self.sentinels.remove(sentinel)
                self.sentinels.insert(0, sentinel)
                return primary
        kind = NotReady if NotReady in problems else Unreachable if problems == {Unreachable} else Error
        raise kind(f"no Sentinel knows a primary of '{_shown(service_name)}' that is up: {'; '.join(said)}")


def _ask(sentinel: Redis, service: str) -> tuple[str, int]:
    """Return host and port of the primary. Raises Error, whose text follows the Sentinel's address."""
    try:
        # Of one service, not of all: more is not permitted to a careful user.
        state: Any = sentinel.execute_command("SENTINEL", "MASTER", service)
        host, port = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        named = host.decode(), int(port)
    except (RedisError, OSError) as error:
        raise (Unreachable if is_nobody_there(error) else Error)(_why_not(error, sentinel)) from None
    except (AttributeError, LookupError, TypeError, ValueError):
        raise Error(NO_SENTINEL) from None
    # A stand-in for a Sentinel may name the primary and tell nothing else: that is no reason to refuse.
    facts = facts_of_pairs(state)
    flags = facts.get("flags", "").split(",")
    down = "s_down" in flags or "o_down" in flags
    if (facts.get("ip", named[0]), facts.get("port", str(named[1]))) != (named[0], str(named[1])):
        return named  # promoted, though other replicas do not follow yet
    shown = _shown(address(*named))
    if "failover_in_progress" in flags:
        raise _HandedOver(f"is having {shown}{', which is down,' if down else ''} replaced by a replica")
    if down:
        raise NotReady(f"says that {shown} is down")
    return named


def _why_not(error: Exception, sentinel: Redis) -> str:
    """Return why a Sentinel does not tell, as a text that follows its address."""
    text = error_text(error, sentinel.connection_pool.connection_kwargs.get("password"))
    match error:
        case RedisError() if "without any password configured" in text:
            return "has no password, and was given one (SENTINEL_PASSWORD, ?sentinel_password=)"
        case AuthenticationError() if "Authentication required" in text:
            return "asks for a password (SENTINEL_PASSWORD, ?sentinel_password=)"
        case AuthenticationError():
            hint = f"; {NO_USERS}" if sentinel.connection_pool.connection_kwargs.get("username") else ""
            options = "SENTINEL_PASSWORD, ?sentinel_username=, ?sentinel_password="
            return f"refuses the user or password ({options}): {text}{hint}"
        case NoPermissionError():
            return f"does not answer this user: {text}; grant it (+sentinel|master)"
        case ResponseError() if "No such master" in text:
            return f"watches no service of that name{_services(sentinel)}"
        case ResponseError() if "unknown command" in text.lower():
            return NO_SENTINEL
        case ResponseError():
            return f"answered: {text}"
        case _:
            return f"cannot be asked: {advise(error, text)}"


def _services(sentinel: Redis) -> str:
    with suppress(RedisError, OSError):
        names: Any = sentinel.sentinel_masters()
        return f", but {', '.join(_shown(name) for name in names)}" if names else ", nor any other"
    return ""


def _shown(text: str) -> str:
    return printable(os.fsencode(text))
