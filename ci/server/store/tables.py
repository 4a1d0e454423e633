"""The tables for Core statements, and the three moves that nearly every function here makes."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import Connection, CursorResult, Executable, Select, Table
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

from ci.server import models

Row = TypeVar("Row", bound=SQLModel)


def _table(model: type[SQLModel]) -> Table:
    return SQLModel.metadata.tables[str(model.__tablename__)]


META = _table(models.Meta)
USER = _table(models.User)
SESSION = _table(models.Session)
TOKEN = _table(models.Token)
CODE = _table(models.Code)
REPO = _table(models.Repo)
HOOK = _table(models.Hook)
INBOX = _table(models.Inbox)
REF_STATE = _table(models.RefState)
BUILD = _table(models.Build)
JOB = _table(models.Job)
ATTEMPT = _table(models.Attempt)
STEP = _table(models.Step)
EVIDENCE = _table(models.Evidence)
RUNNER = _table(models.Runner)
MEMBERSHIP = _table(models.Membership)
AUDIT = _table(models.Audit)
SECRET = _table(models.Secret)
VARIABLE = _table(models.PlainVariable)
SCHEDULE = _table(models.Schedule)
PULL_REQUEST = _table(models.PullRequest)
APPROVAL = _table(models.Approval)
OUTBOX = _table(models.Outbox)


def one(connection: Connection, model: type[Row], statement: Select[Any]) -> Row | None:
    """The only row of `select(TABLE)...` as its model, or None."""
    row = connection.execute(statement).one_or_none()
    return None if row is None else model(**row._mapping)


def many(connection: Connection, model: type[Row], statement: Select[Any]) -> list[Row]:
    return [model(**row._mapping) for row in connection.execute(statement)]


def add(connection: Connection, row: SQLModel) -> int:
    """Insert; returns the new id (0 for a table whose key is a text). A taken unique key raises."""
    values = row.model_dump()
    if values.get("id") is None:
        values.pop("id", None)
    key = connection.execute(_table(type(row)).insert(), values).inserted_primary_key
    return key[0] if key is not None and isinstance(key[0], int) else 0


def add_if_new(connection: Connection, row: SQLModel) -> int | None:
    """Insert, or None where a unique key is taken already, by whichever writer."""
    try:
        with connection.begin_nested():
            return add(connection, row)
    except IntegrityError:
        return None


def changed(connection: Connection, statement: Executable) -> int:
    """Run an UPDATE or DELETE; returns how many rows it met. The heart of each compare-and-set."""
    result = connection.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount
