"""Numbers behind the `?` of an address: what is none counts as not given."""

from __future__ import annotations

from web.guard import Call


def number(call: Call, name: str, default: int) -> int:
    text = call.connection.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else default


def limit(call: Call, *, default: int, most: int) -> int:
    """`?limit=`: at least 1, at most `most`."""
    return min(number(call, "limit", default) or 1, most)
