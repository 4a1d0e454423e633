"""Bring a database to the newest schema. Runs inside one transaction, so a kill leaves old or new."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

from ci.errors import Unavailable


def upgrade(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with engine.connect() as connection:
        # A table that is made anew is dropped in between, which must not delete what points to it. SQLite
        # takes this only outside of a transaction.
        plain = connection.connection.dbapi_connection
        assert isinstance(plain, sqlite3.Connection)
        plain.execute("PRAGMA foreign_keys = OFF")
        try:
            with connection.begin():
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if broken:
                    raise Unavailable(f"the database cannot be upgraded: {len(broken)} rows point to nothing")
        finally:
            plain.execute("PRAGMA foreign_keys = ON")
