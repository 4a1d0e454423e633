"""A job can be asked to end without its build, and a repo's files can be let ask for rights."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("job", sa.Column("cancel_reason", sa.String(), nullable=False, server_default=""))
    for right in ("network", "volumes", "security"):
        column: sa.Column[bool] = sa.Column(
            f"trusts_{right}", sa.Boolean(), nullable=False, server_default=sa.false()
        )
        op.add_column("repo", column)
