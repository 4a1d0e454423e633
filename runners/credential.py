"""The runner's credential: got once by a code, kept in a file that only its owner reads."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ci.errors import Forbidden, Invalid, Unauthenticated, Unavailable
from runners.settings import RunnerSettings, is_loopback

_FILE = "credential.json"
_TIMEOUT_SECONDS = 30.0
_PATIENCE_SECONDS = 3600.0


class Credential(BaseModel):
    model_config = ConfigDict(frozen=True)

    url: str  #: the server's address when the runner registered
    server: str  #: the server's id
    runner: int
    name: str
    credential: str = Field(repr=False)

    def save(self, data: Path) -> None:
        """Whole or not at all, and readable by nobody else at any moment."""
        unfinished = data / f"{_FILE}.{os.getpid()}"
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(self.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(fd)
        unfinished.rename(data / _FILE)


def load(settings: RunnerSettings) -> Credential | None:
    """None if the runner was never registered. Raises Forbidden rather than show it to another server."""
    path = settings.data / _FILE
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        credential = Credential.model_validate_json(text)
    except ValidationError as error:
        raise Invalid(f"{path} is not readable; remove it to register this runner anew.") from error
    is_same = credential.url == settings.server
    if not is_same and not (is_loopback(credential.url) and is_loopback(settings.server)):
        raise Forbidden(
            f"The data folder {settings.data} belongs to a runner of {credential.url}, not of "
            f"{settings.server}: give another --data, or remove {path} to register anew."
        )
    return credential


def register(settings: RunnerSettings, code: str) -> Credential:
    """Trade the one-time code for a credential, and keep it. Waits for a server that does not answer yet.

    The credential is made here, so that the same request may be repeated when its answer was lost.
    """
    body = {
        "code": code,
        "name": settings.name,
        "labels": settings.all_labels,
        "capacity": settings.capacity,
        "credential": f"runner_{secrets.token_urlsafe(32)}",
    }
    url = f"{settings.server}/api/runners/register"
    with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=not settings.is_server_on_loopback) as client:
        answer = _post(client, url, body)
    if answer.status_code >= 400:
        raise Unauthenticated(f"{settings.server} refused to register this runner: {_words(answer)}")
    try:
        credential = Credential(url=settings.server, **answer.json())
    except (ValueError, TypeError) as error:
        raise Invalid(f"What answers at {url} is no Shipway server.") from error
    credential.save(settings.data)
    return credential


def _post(client: httpx.Client, url: str, body: Mapping[str, Any]) -> httpx.Response:
    """Tries until an hour is over, as long as a code lives."""
    began, has_told = time.monotonic(), False
    while True:
        try:
            return client.post(url, json=body)
        except httpx.HTTPError as error:
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise Unavailable(f"No server answers at {url}: {error}.") from error
            if not has_told:
                print(f"no server answers at {url} yet ({error}); trying again", file=sys.stderr, flush=True)
            has_told = True
        time.sleep(0.2 if time.monotonic() - began < 10 else 5.0)


def _words(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, TypeError, KeyError):  # what answers is not ours, but a proxy perhaps
        return f"HTTP {answer.status_code} {answer.text[:200]}"
