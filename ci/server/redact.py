"""A body for a reader: its JSON in order, without what looks like a secret or is one. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

#: Larger bodies are not parsed for a page.
MAX_BODY_BYTES = 1 << 20
MAX_SHOWN = 200_000
_MAX_DEPTH = 60
REMOVED = "(removed)"
_KEYS = (
    "token",
    "secret",
    "password",
    "passwd",
    "authorization",
    "credential",
    "private_key",
    "api_key",
    "cookie",
)


def shown(body: bytes, secrets: Sequence[str]) -> str:
    """The text for a page, at most MAX_SHOWN characters; a sentence in brackets for what cannot be shown."""
    if len(body) > MAX_BODY_BYTES:
        return f"(a body of {len(body):,} bytes is not shown here)"
    try:
        found = json.loads(body)
        text = json.dumps(_clean(found, secrets, _MAX_DEPTH), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return f"(a body of {len(body):,} bytes that is no JSON)"
    text = text.encode(errors="replace").decode()
    rest = len(text) - MAX_SHOWN
    return f"{text[:MAX_SHOWN]}\n… {rest:,} more characters" if rest > 0 else text


def _clean(value: Any, secrets: Sequence[str], depth: int) -> Any:
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        return {
            _text(key, secrets): REMOVED if _is_secret(key) and each else _clean(each, secrets, depth - 1)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_clean(each, secrets, depth - 1) for each in value]
    return _text(value, secrets) if isinstance(value, str) else value


def _is_secret(key: str) -> bool:
    small = key.lower().replace("-", "_")
    return any(word in small for word in _KEYS)


def _text(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REMOVED)
    return text
