"""The JSON API over HTTP: what comes back, or a sentence why not."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from ci import __version__
from ci.client.servers import Account, is_loopback
from ci.client.terminal import plain
from ci.errors import Invalid, Unavailable

TIMEOUT_SECONDS = 30.0
#: Of a log at once, so that a long one costs no memory.
PIECE_BYTES = 4 << 20


class Refused(Invalid):
    """The server understood, and said no. `code` is the API's word for why."""

    def __init__(self, sentence: str, *, code: str, status: int) -> None:
        super().__init__(sentence)
        self.code = code
        self.status = status


class Api:
    """One server, as one person. A context manager."""

    def __init__(self, account: Account, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.account = account
        headers = {"accept": "application/json", "user-agent": f"shipway/{__version__}"}
        if account.token:
            headers["authorization"] = f"Bearer {account.token}"
        self._client = httpx.Client(
            base_url=account.url,
            headers=headers,
            timeout=timeout_seconds,
            # A proxy of the environment is not for this machine's own server.
            trust_env=not is_loopback(account.url),
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int | None) -> Any:
        wanted = {name: value for name, value in query.items() if value not in (None, "")}
        return self.call("GET", path, query=wanted)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self.call("POST", path, body=body or {})

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return self.call("PUT", path, body=body)

    def delete(self, path: str) -> Any:
        return self.call("DELETE", path)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """What the answer's JSON says; None for an answer without a body. Raises Refused or Unavailable."""
        answer = self._send(method, path, params=query, json=body)
        if answer.status_code >= 300:
            raise self._error(answer)
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise self._stranger(answer) from error

    def part(self, path: str, offset: int, *, attempt: int) -> bytes:
        """A piece of a log from a byte on; empty where there is nothing yet."""
        answer = self._send(
            "GET",
            path,
            params={"attempt": attempt},
            headers={"range": f"bytes={offset}-{offset + PIECE_BYTES - 1}"},
        )
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return b""
        if answer.status_code >= 300:
            raise self._error(answer)
        return answer.content[offset:] if answer.status_code == httpx.codes.OK else answer.content

    def sign_in(self, name: str, password: str) -> None:
        """Be that person by a session, for what follows on this object."""
        answer = self._send("POST", "/sign-in", json={"name": name, "password": password, "next": "/"})
        if answer.status_code == httpx.codes.SEE_OTHER:
            return
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise Unavailable("too many wrong passwords: please wait a few minutes")
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise Refused("the name or the password is wrong", code="unauthenticated", status=401)
        raise self._error(answer)

    def sign_out(self) -> None:
        """End the session of `sign_in`."""
        self._send("POST", "/sign-out", json={})

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **options)
        except httpx.TimeoutException as error:
            raise Unavailable(f"{self.account.url} does not answer in time: {_words(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"{self.account.url} cannot be reached: {_words(error)}") from error

    def _error(self, answer: httpx.Response) -> Refused | Unavailable:
        try:
            problem = answer.json()
            detail, code = str(problem["detail"]), str(problem["code"])
            mistakes = problem.get("problems") or []
        except (ValueError, TypeError, KeyError, AttributeError):
            return self._stranger(answer)
        lines = [plain(detail)]
        if mistakes:
            lines = [plain("{file}:{line}:{column}: {message}".format(**each)) for each in mistakes]
        if code == "unauthenticated" and not self.account.token:
            lines = [f"you are not signed in to {self.account.url}: `shipway login {self.account.url}`"]
        elif code == "unauthenticated":
            lines.append(f"Sign in again: `shipway login {self.account.url}`")
        sentence = "\n".join(lines)
        if answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return Unavailable(sentence)
        return Refused(sentence, code=code, status=answer.status_code)

    def _stranger(self, answer: httpx.Response) -> Unavailable:
        where = answer.headers.get("location", "")
        more = f" and points to {plain(where)}" if where else ""
        status = answer.status_code
        return Unavailable(
            f"what answers at {self.account.url} does not speak Shipway's API: HTTP {status}{more}"
        )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def segment(text: str) -> str:
    """One part of a path, whatever is in it."""
    return quote(text, safe="")
