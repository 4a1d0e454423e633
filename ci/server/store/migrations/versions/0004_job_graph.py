"""A job can be asked to end without its build."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("job", sa.Column("cancel_reason", sa.String(), nullable=False, server_default=""))
