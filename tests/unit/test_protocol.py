"""The wire: what goes in comes out, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ci import protocol
from ci.protocol import (
    FRAME_HEADER_BYTES,
    Accept,
    AskDead,
    Assign,
    Begin,
    Cancel,
    Dead,
    Drain,
    FrameKind,
    Granted,
    Heartbeat,
    Held,
    Hello,
    JobEnded,
    Lease,
    LogEnded,
    LogFrame,
    Lost,
    Record,
    Recorded,
    Released,
    StepAsks,
    StepChanged,
    Stream,
    Take,
    Welcome,
)
from ci.status import Outcome, Status
from tests.unit.world import spec

LEASE = Lease(job=1, attempt=2, epoch=3)
CHANGES = (
    StepChanged(step=1, status=Status.FAILURE, outcome=Outcome.EXIT, exit_code=3, after_seconds=1.5),
    StepAsks(step=1, after_seconds=0.0),
    LogEnded(step=1, size=2, crc32=3, marks_size=4, marks_crc32=5),
    JobEnded(status=Status.SUCCESS, after_seconds=9.0),
)
FROM_RUNNER = (
    Hello(software="x", labels={"a": "b"}, capacity=2, engine="e", held=(Held(lease=LEASE, is_alive=True),)),
    Take(free=1),
    Heartbeat(leases=(LEASE,)),
    Accept(lease=LEASE),
    *(Record(lease=LEASE, seq=0, change=change) for change in CHANGES),
    Lost(lease=LEASE, reason="killed"),
    AskDead(attempts=((1, 2),)),
)
FROM_SERVER = (
    Welcome(server="s", runner=1, name="a", leases=(LEASE,), dead=(LEASE,)),
    Assign(lease=LEASE, spec=spec(deploy=True), secrets={"a": "b"}, credentials=("u", "p"), masks=("p",)),
    Begin(lease=LEASE),
    Recorded(lease=LEASE, seq=-1),
    Granted(lease=LEASE, step=1),
    Cancel(lease=LEASE, reason="r"),
    Released(lease=LEASE),
    Dead(attempts=((1, 2),)),
    Drain(is_draining=False),
)


@pytest.mark.parametrize("message", FROM_RUNNER)
def test_a_runners_message_survives_the_wire(message: protocol.RunnerMessage) -> None:
    assert protocol.decode_from_runner(protocol.encode(message)) == message


@pytest.mark.parametrize("message", FROM_SERVER)
def test_a_servers_message_survives_the_wire(message: protocol.ServerMessage) -> None:
    assert protocol.decode_from_server(protocol.encode(message)) == message


@pytest.mark.parametrize("change", CHANGES)
def test_a_journal_line_survives(change: protocol.Change) -> None:
    assert protocol.decode_change(protocol.encode(change)) == change


def test_every_message_of_the_unions_is_tried_here() -> None:
    def names(union: object) -> set[str]:
        return {each.__name__ for each in union.__args__[0].__args__}  # type: ignore[attr-defined]

    assert {type(each).__name__ for each in FROM_RUNNER} == names(protocol.RunnerMessage)
    assert {type(each).__name__ for each in FROM_SERVER} == names(protocol.ServerMessage)
    assert {type(each).__name__ for each in CHANGES} == names(protocol.Change)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"type":"begin"}', '{"type":"take"}', "\ud800"])
def test_what_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        protocol.decode_from_runner(text.encode(errors="replace"))


def test_a_newer_field_is_passed_over_so_that_either_side_may_be_upgraded_first() -> None:
    assert protocol.decode_from_runner('{"type":"take","free":1,"of_tomorrow":true}') == Take(free=1)


def test_secrets_do_not_show_in_a_representation() -> None:
    assign = Assign(
        lease=LEASE, spec=spec(), secrets={"k": "hush"}, credentials=("u", "hush"), masks=("hush",)
    )
    assert "hush" not in repr(assign)


def test_an_error_about_what_is_no_message_quotes_none_of_it() -> None:
    text = Assign(lease=LEASE, spec=spec(), secrets={"k": "hush"}).model_dump_json()
    for broken in (
        text.replace('"epoch"', '"epock"'),
        text.replace('"hush"', '["hush"]'),
        text[:-9] + "hush",
    ):
        with pytest.raises(ValidationError) as caught:
            protocol.decode_from_server(broken)
        assert "hush" not in str(caught.value)


NUMBERS = st.integers(0, (1 << 32) - 1)
LONG = st.integers(0, (1 << 63) - 1)
LEASES = st.builds(Lease, job=LONG, attempt=NUMBERS, epoch=NUMBERS)


@given(
    st.builds(
        LogFrame, st.sampled_from(FrameKind), LEASES, NUMBERS, st.sampled_from(Stream), LONG, st.binary()
    )
)
def test_a_log_frame_survives_the_wire(frame: LogFrame) -> None:
    assert LogFrame.decode(frame.encode()) == frame


@given(st.binary(max_size=2 * FRAME_HEADER_BYTES))
def test_any_bytes_are_a_frame_or_a_value_error(data: bytes) -> None:
    try:
        LogFrame.decode(data)
    except ValueError:
        return
