"""The one tree of errors. Messages are sentences for the reader who must act.

    ShipwayError
    ├── NotFound          it does not exist, or you may not know that it does
    ├── Unauthenticated   we do not know who you are
    ├── Forbidden         we know who you are, and you may not
    ├── Invalid           what you sent is wrong
    │   ├── TooLarge      ... because it is too big
    │   └── ConfigError   ... in a pipeline file: carries every problem at once
    ├── Conflict          right in itself, but the state has moved on
    └── Unavailable       we cannot, now; trying again later is right
        └── RateLimited   ... and not before `retry_seconds`

`code` is stable and machine-readable; web/problems.py holds the only map to HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ShipwayError(Exception):
    code = "internal"


class NotFound(ShipwayError):
    code = "not_found"


class Unauthenticated(ShipwayError):
    code = "unauthenticated"


class Forbidden(ShipwayError):
    code = "forbidden"


class Invalid(ShipwayError):
    code = "invalid"


class TooLarge(Invalid):
    code = "too_large"


class Conflict(ShipwayError):
    code = "conflict"


class Unavailable(ShipwayError):
    code = "unavailable"


class RateLimited(Unavailable):
    code = "rate_limited"

    def __init__(self, sentence: str, retry_seconds: float) -> None:
        super().__init__(sentence)
        self.retry_seconds = retry_seconds


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong in a pipeline file. `line` and `column` count from 1."""

    message: str
    file: str = ".ci.yml"
    line: int = 1
    column: int = 1
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class ConfigError(Invalid):
    """A pipeline file that cannot be used; `problems` holds all of them, in file order."""

    code = "config"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
