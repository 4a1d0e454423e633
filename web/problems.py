"""The one map from our errors to HTTP: RFC 9457 problem details for programs, a page for people."""

from __future__ import annotations

import logging
import secrets
from http import HTTPStatus

from ci.errors import (
    ConfigError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    ShipwayError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:shipway:problem:"


class TooMany(Unavailable):
    """Asked too often; `retry_seconds` says when it is right to ask again."""

    code = "too_many"

    def __init__(self, sentence: str, retry_seconds: int) -> None:
        super().__init__(sentence)
        self.retry_seconds = retry_seconds


class TooSlow(Invalid):
    """A body that does not come to its end."""

    code = "too_slow"


class MethodNotAllowed(ShipwayError):
    code = "method_not_allowed"


class NoSuchRange(Invalid):
    code = "no_such_range"


class Internal(ShipwayError):
    """Our own fault. The reader gets an id, the log has the rest under it."""

    code = "internal"


#: The first that fits.
STATUS: tuple[tuple[type[ShipwayError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (TooSlow, HTTPStatus.REQUEST_TIMEOUT),
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (NoSuchRange, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
    (ConfigError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Invalid, HTTPStatus.BAD_REQUEST),
    (Conflict, HTTPStatus.CONFLICT),
    (TooMany, HTTPStatus.TOO_MANY_REQUESTS),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (MethodNotAllowed, HTTPStatus.METHOD_NOT_ALLOWED),
)


def status(error: ShipwayError) -> HTTPStatus:
    return status_of(type(error))


def status_of(kind: type[ShipwayError]) -> HTTPStatus:
    return next(
        (found for above, found in STATUS if issubclass(kind, above)), HTTPStatus.INTERNAL_SERVER_ERROR
    )


def headers(error: ShipwayError) -> dict[str, str]:
    if isinstance(error, TooMany):
        return {"retry-after": str(error.retry_seconds)}
    if isinstance(error, Unauthenticated):
        return {"www-authenticate": 'Bearer realm="Shipway"'}
    return {}


#: What each `code` means, whatever it is about.
TITLES: dict[str, str] = {
    "invalid": "What you sent is wrong",
    "config": "The pipeline file cannot be used",
    "unauthenticated": "We do not know who you are",
    "forbidden": "You may not do this",
    "not_found": "It does not exist, or you may not know that it does",
    "method_not_allowed": "Nothing here answers to this method",
    "conflict": "The state has moved on",
    "too_large": "The body is too large",
    "no_such_range": "The log does not have these bytes",
    "too_many": "Asked too often",
    "too_slow": "The body did not come in time",
    "unavailable": "Not now; come again",
    "rate_limited": "A forge lets us ask again later only",
    "internal": "Something broke on our side",
}


def body(error: ShipwayError) -> dict[str, object]:
    """The problem as RFC 9457 has it, and beside it our stable `code`; docs/reference/api.md promises it."""
    found: dict[str, object] = {
        "type": TYPE_PREFIX + error.code,
        "title": TITLES[error.code],
        "status": status(error).value,
        "detail": str(error),
        "code": error.code,
    }
    if isinstance(error, ConfigError):
        found["problems"] = [vars(problem) for problem in error.problems]
    return found


def internal(error: Exception) -> Internal:
    """Log the whole of an error that nobody expected; return what may be shown of it."""
    incident = secrets.token_hex(4)
    log.error("internal error incident=%s", incident, exc_info=error)
    return Internal(f"something broke on our side; the server's log has it under {incident}")
