"""A private repo can let the others of its owner include its files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("repo", sa.Column("lends_files", sa.Boolean(), nullable=False, server_default=sa.false()))
