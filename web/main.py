"""`shipway serve`: flags, uvicorn, and the embedded runner as a child of its own session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from starlette.types import ASGIApp

from ci import __version__, logging_format
from ci.errors import Unavailable
from ci.server.config import Settings
from ci.server.wiring import Server
from web.app import build_app
from web.embedded import EmbeddedRunner
from web.machines import machines
from web.parts import Parts


def serve(
    data: Annotated[Path | None, typer.Option(help="data folder [SHIPWAY_DATA_DIR, ./shipway-data]")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on [SHIPWAY_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="port; 0 takes a free one [SHIPWAY_PORT]")] = None,
    url: Annotated[str | None, typer.Option(help="public URL of this server [SHIPWAY_URL]")] = None,
    runner: Annotated[str | None, typer.Option(help="auto, on or off [SHIPWAY_RUNNER]")] = None,
) -> None:
    """Start the server, and a runner beside it where a container engine answers."""
    overrides = {"data_dir": data, "host": host, "port": port, "url": url, "runner": runner}
    given = {name: str(value) for name, value in overrides.items() if value is not None}
    settings = Settings.load(os.environ, given)
    logging_format.configure(settings.log_format)
    os.umask(0o077)  # also where the data folder was there before, and others may look into it
    asyncio.run(_serve(settings))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # from here on nobody is refused, before anything is printed
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}; try --port 0") from error
    return listener


def _own_url(host: str, port: int) -> str:
    """Where this machine's own programs (hooks of a push, the embedded runner) reach us."""
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _HTTP(uvicorn.Server):
    """uvicorn without its signal handling, which would raise the signal again before we have cleaned up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _end_on_signals(http: _HTTP) -> list[int]:
    """INT or TERM ends the server in order, the second one at once. Returns the signals as they come."""
    came: list[int] = []

    def on_signal(number: int) -> None:
        http.force_exit = bool(came)
        http.should_exit = True
        came.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return came


async def _serve(settings: Settings) -> None:
    listener = _listen(settings.host, settings.port)
    own_url = _own_url(settings.host, listener.getsockname()[1])
    if settings.port == 0:  # the port is known only now
        settings = replace(settings, url=settings.url.removesuffix(":0") + f":{listener.getsockname()[1]}")
    server = Server(settings)
    await server.start()
    embedded = EmbeddedRunner(server, own_url) if settings.runner != "off" else None
    http = _HTTP(_uvicorn_config(application(server, own_url), settings.trusted_proxies))
    signals = _end_on_signals(http)
    try:
        async with _running(embedded):
            await _greet(server, embedded is not None)
            await http.serve(sockets=[listener])
    finally:
        await server.stop()
        if embedded is not None:
            await embedded.leave(is_interrupted=signal.SIGINT in signals)


def application(server: Server, own_url: str) -> ASGIApp:
    """All that answers on the port; `own_url` is where this machine's own programs reach us."""
    parts = Parts(
        store=server.store,
        bus=server.bus,
        logs=server.logs,
        lifecycle=server.lifecycle,
        clock=server.clock,
        approvals=server.approvals,
        rerun=server.trigger.rerun,
        secrets=server.secrets,
        credentials=server.credentials,
        forges=server.forges,
        inbox=server.inbox,
        repos=server.repos,
        starts=server.starts,
        schedules=server.schedules,
        variables=server.variables,
        url=server.settings.url,
        session_seconds=server.settings.session_days * 86400.0,
    )
    return build_app(parts, machines(server, own_url))


def _uvicorn_config(application: ASGIApp, trusted_proxies: str) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        ws="websockets-sansio",
        ws_per_message_deflate=False,  # it costs 30 times the throughput
        ws_max_size=1 << 20,
        log_config=None,  # its lines go where ours go
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies,  # never from uvicorn's own variable
        lifespan="off",
        timeout_graceful_shutdown=3,
    )


@contextlib.asynccontextmanager
async def _running(embedded: EmbeddedRunner | None) -> AsyncIterator[None]:
    keeping = asyncio.create_task(embedded.keep()) if embedded is not None else None
    try:
        yield
    finally:
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def _greet(server: Server, has_runner: bool) -> None:
    settings = server.settings
    rows = [
        ("data", str(settings.data_dir.absolute())),
        ("runner", "one on this machine" if has_runner else "none here; /runners tells how to add one"),
        ("open", settings.url),
    ]
    code = await server.setup_code()
    if code:
        rows[-1] = ("open", f"{settings.url}/setup")
        rows.append(("setup code", f"{code}  (makes the first account, works once)"))
    print(f"Shipway {__version__}")
    for name, value in rows:
        print(f"  {name:<11} {value}")
    sys.stdout.flush()
