"""How our processes write their own log: one line an event, for people or as JSON. Pure."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

FORMATS = ("text", "json")
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, `error` with its traceback, and what `extra` gave."""

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        found |= {name: value for name, value in vars(record).items() if name not in _OWN}
        return json.dumps(found, ensure_ascii=False, default=str)


def configure(form: str, level: str = "info") -> None:
    """Send everything that this process logs to stderr. Call it once, first thing."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for loud in ("httpx", "httpcore", "asyncio", "alembic", "docker", "urllib3"):
        logging.getLogger(loud).setLevel(logging.WARNING)
