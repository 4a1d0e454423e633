"""The second socket of a runner: who it is, then its log frames."""

from __future__ import annotations

from starlette.websockets import WebSocket

from web.log_socket import LogSocket
from web.runner_socket import RunnerDoor, refuse


class RunnerLogs:
    def __init__(self, door: RunnerDoor, logs: LogSocket) -> None:
        self._door = door
        self._logs = logs

    async def serve(self, websocket: WebSocket) -> None:
        runner_id = await self._door.runner_of(websocket)
        if runner_id is None:
            await refuse(websocket)
            return
        await self._logs.serve(websocket, runner_id)
