from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.world import HeldClock
from tests.walk import Town, town


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Town]:
    """The clock stands: that a session was seen is not stored again."""
    async with town(tmp_path, HeldClock()) as found:
        yield found
