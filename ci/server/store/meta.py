"""Who this server is."""

from __future__ import annotations

import secrets

from sqlalchemy import Connection

from ci.server.models import Meta
from ci.server.store.tables import META, add_if_new, one


def server_id(connection: Connection, now: float) -> str:
    """The id in every label of this server's resources; made by the first call. Needs a write."""
    add_if_new(connection, Meta(id=1, server_id=secrets.token_hex(8), created_at=now))
    row = one(connection, Meta, META.select())
    assert row is not None
    return row.server_id
