"""What the pages stand on, named one by one, so that no function takes "the server"."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from ci.server.approvals import Approvals
from ci.server.auth import Actor
from ci.server.bus import Bus
from ci.server.clock import Clock
from ci.server.credentials import Credentials
from ci.server.forges.directory import Forges
from ci.server.inbox import Inbox
from ci.server.lifecycle import Lifecycle
from ci.server.logs import Logs
from ci.server.repos import Repos
from ci.server.schedules import Schedules
from ci.server.secrets import Secrets
from ci.server.starts import Starts
from ci.server.store.database import Store
from ci.server.variables import Variables


class Rerun(Protocol):
    """Gives (owner, name, number) of the new build."""

    def __call__(
        self, build_id: int, who: Actor, *, only_failed: bool = False
    ) -> Awaitable[tuple[str, str, int]]: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    store: Store
    bus: Bus
    logs: Logs
    lifecycle: Lifecycle
    clock: Clock
    approvals: Approvals
    rerun: Rerun
    secrets: Secrets
    variables: Variables
    credentials: Credentials
    forges: Forges
    inbox: Inbox
    repos: Repos
    starts: Starts
    schedules: Schedules
    url: str  #: how browsers, git and runners reach us, without a slash at the end
    session_seconds: float = 30 * 86400.0

    @property
    def is_https(self) -> bool:
        return self.url.startswith("https://")

    def cookie(self, name: str) -> str:
        """The cookie's full name: under https, browsers take it from this very host alone."""
        return f"__Host-{name}" if self.is_https else name
