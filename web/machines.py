"""The routes that programs speak to, wired on their parts: git, hooks, and the runners' sockets."""

from __future__ import annotations

from ci.server.wiring import Server
from web.git_access import GitAccess
from web.git_http import GitHTTP, install_hooks
from web.guard import Policy
from web.hooks import HookDoor
from web.identity import Identity
from web.log_socket import LogSocket
from web.push import OpenPushes
from web.routes import Entry, machine, mount, socket
from web.runner_logs import RunnerLogs
from web.runner_socket import RunnerDoor
from web.waiting import Waiting


def machines(server: Server, own_url: str) -> tuple[Entry, ...]:
    """`own_url` is where this machine's own programs reach us."""
    waiting = Waiting(server.store, server.bus, server.logs, server.settings.url)
    pushes = OpenPushes(server.pushes, waiting, own_url)
    access = GitAccess(server, pushes, Identity(server.store, server.clock))
    git = GitHTTP(access, install_hooks(server.settings.data_dir / "hooks"))
    hooks = HookDoor(server.hooks, server.settings.hook_max_bytes)
    door = RunnerDoor(
        store=server.store,
        bus=server.bus,
        clock=server.clock,
        queue=server.queue,
        lifecycle=server.lifecycle,
    )
    log_socket = LogSocket(server.logs, holds=server.queue.holds, log_closed=server.lifecycle.log_closed)
    return (
        mount("/git", git, Policy.GIT),
        machine(("POST",), "/hooks/{hook}", hooks.receive, Policy.HOOK),
        machine(("POST",), "/internal/push/{phase}", pushes.hook, Policy.PUSH),
        machine(("POST",), "/api/runners/register", door.register, Policy.RUNNER),
        socket("/runner/control", door.control, Policy.RUNNER),
        socket("/runner/logs", RunnerLogs(door, log_socket).serve, Policy.RUNNER),
    )
