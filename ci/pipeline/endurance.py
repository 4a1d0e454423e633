"""Endurance: reads `retry` of a step and `ready` of a service."""

from __future__ import annotations

from ci.pipeline.fields import Fields
from ci.pipeline.schema import READY, RETRY, Shape
from ci.pipeline.yaml import Kind, Mapping, Scalar
from ci.spec import Ready, Retry

MAX_ATTEMPTS = 10


def read_retry(fields: Fields) -> Retry | None:
    node = fields.get("retry", Shape.RETRY)
    if node is None:
        return None
    if not isinstance(node, Mapping):
        attempts = fields.reader.number(node, '"retry"', 2, MAX_ATTEMPTS)
        return Retry(attempts=attempts) if attempts else None
    inner = fields.reader.fields(node, RETRY)
    if inner is None:
        return None
    attempts = inner.number("attempts", 2, MAX_ATTEMPTS)
    if inner.lacks("attempts"):
        fields.reader.problems.error(node.mark, '"retry" needs "attempts"')
    return Retry(
        attempts=attempts or 2,
        pause_seconds=inner.seconds("pause") or 0,
        on_any_failure=inner.word("on") != "error",
    )


def read_ready(fields: Fields) -> Ready | None:
    """`ready: 5432`, `ready: pg_isready`, `ready: true` for the image's own check, or a map."""
    node = fields.get("ready", Shape.READY)
    if node is None:
        return None
    if isinstance(node, Scalar) and node.kind is Kind.INT:
        port = fields.reader.number(node, '"ready"', 1, 65_535)
        return Ready(port=port) if port else None
    if isinstance(node, Scalar) and node.kind is Kind.BOOL:
        return Ready() if node.text.lower() == "true" else None
    if not isinstance(node, Mapping):
        command = fields.reader.text(node, '"ready"')
        return Ready(command=command) if command else None
    inner = fields.reader.fields(node, READY)
    if inner is None:
        return None
    port, command = inner.number("port", 1, 65_535), inner.text("command") or ""
    if port and command:
        fields.reader.problems.error(node.mark, '"ready" has "port" or "command", not both')
    return Ready(
        port=port,
        command=command,
        interval_seconds=inner.seconds("interval") or 1,
        timeout_seconds=inner.seconds("timeout") or 60,
    )
