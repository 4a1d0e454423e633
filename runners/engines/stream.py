"""The raw stream of an attached container: frames of an 8-byte header (stream, length) and bytes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

_READ_BYTES = 256 * 1024
_HEADER_BYTES = 8


def pump(connection: socket.socket, write: Callable[[bytes], None]) -> None:
    """Give every byte of both streams to `write`, in their order, until the stream ends.

    Frames of one read go out as one piece. A `write` that blocks makes the container wait.
    """
    for piece in pieces(connection):
        write(piece)


def pieces(connection: socket.socket) -> Iterator[bytes]:
    held = b""  # an unfinished header
    missing = 0  # bytes of the current frame that are still to come
    while data := _read(connection):
        found: list[bytes] = []
        if held:
            data, held = held + data, b""
        at, end = 0, len(data)
        while at < end:
            if missing:
                take = min(missing, end - at)
                found.append(data[at : at + take])
                at, missing = at + take, missing - take
            elif end - at < _HEADER_BYTES:
                held, at = data[at:], end
            else:
                missing = int.from_bytes(data[at + 4 : at + _HEADER_BYTES], "big")
                at += _HEADER_BYTES
        if found:
            yield found[0] if len(found) == 1 else b"".join(found)


def lines(connection: socket.socket) -> Iterator[bytes]:
    """Whole lines, without their end."""
    rest = b""
    for piece in pieces(connection):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(_READ_BYTES)
    except ConnectionError:
        return b""
    except OSError:  # closed by ourselves, in another thread
        return b""
