"""Where cut-overs are tried: a primary with its replica, as servers are really set up, and a gate before them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import trustme

from chaos import gate, sites
from chaos.counting import Settings
from chaos.gate import Gate
from chaos.sites import PASSWORD, USER, Guarded, Standalone
from tests import tls
from tests.sentinels import SERVICE

THREADS = ("--io-threads", "2", "--io-threads-do-reads", "yes")
SPLITS = 0.3
"""Of the packets of a freeze: where all of them are split, hardly any freeze comes to its end."""


@dataclass(frozen=True)
class Setting:
    """How a server is set up, and how it is reached."""

    sync: str = "everysec"
    """When its AOF is written to the disk."""
    options: tuple[str, ...] = ()
    tls: bool = False
    """Whether everybody speaks TLS to it."""
    splits: float = 0.0
    """The share of the packets of a freeze that reach it in pieces."""


SETTINGS = {
    "everysec": Setting(),
    "always": Setting(sync="always"),
    "threads": Setting(options=THREADS),
    "tls": Setting(tls=True),
    "split": Setting(splits=SPLITS),
    "sentinel": Setting(),
}


@dataclass(frozen=True)
class Place:
    """A server, and how it is reached."""

    site: Standalone
    setting: Setting
    gate: Gate | None
    """What luamigrate's packets pass; None behind a Sentinel."""
    url: str
    """The URL under which luamigrate finds the server."""
    options: tuple[str, ...]
    """That luamigrate needs to connect."""
    application: Settings
    """How the application connects."""

    def reset(self) -> None:
        """Have it empty, whole, and without faults."""
        self.heal()
        sites.reset(self.site)

    def heal(self) -> None:
        """Have it whole, and without faults."""
        if self.gate:
            self.gate.reset()
            self.gate.splits = self.setting.splits
        self.site.heal()


@contextmanager
def opened(server: str, name: str) -> Iterator[Place]:
    """Start a server in one of the settings."""
    setting = SETTINGS[name]
    with ExitStack() as stack:
        if name == "sentinel":
            guarded: Guarded = stack.enter_context(sites.guarded(server))
            application = Settings(url="", sentinel=guarded.port, service=SERVICE)
            yield Place(guarded, setting, None, guarded.url(), (), application)
            return
        site = Standalone(server, *stack.enter_context(sites.pair(server, setting.sync, *setting.options)))
        site.heal()
        if not setting.tls:
            before = stack.enter_context(gate.before(site.path))
            yield Place(site, setting, before, _for_user(before.url), (), Settings(url=site.primary.url))
            return
        authority = trustme.CA()
        own = tls.context(authority.issue_cert("127.0.0.1"))
        file = str(stack.enter_context(authority.cert_pem.tempfile()))
        before, other = (stack.enter_context(gate.before(site.path, own)) for _ in range(2))
        application = Settings(url=other.url, authority=file)
        yield Place(site, setting, before, _for_user(before.url), ("--tls-ca", file), application)


def _for_user(url: str) -> str:
    return url.replace("://", f"://{USER}:{PASSWORD}@")
