"""Which repos have deliveries that wait is asked at each delivery: an index answers it."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_index("ix_inbox_state", "inbox")
    op.create_index("ix_inbox_state_repo_id", "inbox", ["state", "repo_id"], unique=False)
