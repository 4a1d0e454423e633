"""Handover: what a supervisor hands to a job process, once, by pipe. The only way a secret takes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ci.protocol import Assign

#: What the job process answers on its standard output once it holds its spool.
HOLDING = b"holding\n"


class Handover(BaseModel):
    """One line of JSON; a line without its end means that the supervisor died: nothing may start."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    assign: Assign = Field(repr=False)
    spool: str  #: the folder, made by `spool.prepare`
    data: str  #: the runner's data folder
    server: str  #: the server's id, for the labels
    runner: str  #: the runner's id, for the labels
    disconnect_limit_seconds: float

    def to_line(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Handover | None:
        """None for the end of input, or a line that was cut off."""
        return cls.model_validate_json(line) if line.endswith(b"\n") else None
