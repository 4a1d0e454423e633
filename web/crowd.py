"""How many sockets one visitor holds at once: who opens them without end costs the others nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.websockets import WebSocket

from web.problems import TooMany

MAX_SOCKETS = 100  #: of one person, or of one address without an account; of each kind


class Crowd:
    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def place(self, websocket: WebSocket) -> Iterator[None]:
        """A place for this socket while it lives. Raises TooMany."""
        client = websocket.client
        who = getattr(websocket.state, "visitor", client.host if client else "")
        if self._open[who] >= MAX_SOCKETS:
            raise TooMany(f"you have {MAX_SOCKETS} pages of this kind open; close some", 60)
        self._open[who] += 1
        try:
            yield
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]
