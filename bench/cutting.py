"""A TCP proxy that cuts connections hard, in mid-frame: for tests of what resumes."""

from __future__ import annotations

import contextlib
import socket
import threading


class CuttingProxy:
    """Cuts each connection whose first bytes hold `wanted` after the next of `cuts` bytes to the client. When
    these are used up, and for all others, nothing is cut."""

    def __init__(self, wanted: bytes, cuts: list[int]) -> None:
        self._wanted = wanted
        self._cuts = cuts
        self.cut = 0
        self._port_behind = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self, port_behind: int) -> None:
        self._port_behind = port_behind
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._port_behind))
        with client, server, contextlib.suppress(OSError):
            first = client.recv(65536)
            limit = None
            if self._wanted in first and self.cut < len(self._cuts):
                limit = self._cuts[self.cut]
                self.cut += 1
            server.sendall(first)
            threading.Thread(target=_copy, args=(client, server, None), daemon=True).start()
            _copy(server, client, limit)


def _copy(source: socket.socket, target: socket.socket, limit: int | None) -> None:
    """Until the source ends, or `limit` bytes were copied: then both are reset."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536 if limit is None else min(limit, 65536)):
            target.sendall(data)
            if limit is not None:
                limit -= len(data)
                if limit <= 0:
                    break
        for end in (source, target):
            end.shutdown(socket.SHUT_RDWR)
