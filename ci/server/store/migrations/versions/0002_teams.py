"""What a team needs: people, secrets, approvals, schedules, statuses to forges."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_STATUSES = (
    "status IN ('blocked', 'waiting', 'pending', 'running', 'success', 'failure', 'error', "
    "'cancelled', 'skipped', 'unknown')"
)


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("user_name", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object", sa.String(), nullable=False),
        sa.Column("repo_id", sa.Integer(), nullable=True),
        sa.Column("details", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_audit_at", "audit", ["at"], unique=False)
    op.create_index("ix_audit_repo_id", "audit", ["repo_id"], unique=False)
    op.create_table(
        "secret",
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("is_weak", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("changed_by", sa.String(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=True),
        sa.Column("used_in", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("place", "name"),
    )
    op.create_table(
        "variable",
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("changed_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("place", "name"),
    )
    op.create_table(
        "membership",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repo_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repo_id"],
            ["repo.id"],
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["user.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("repo_id", "user_id"),
    )
    op.create_index("ix_membership_user_id", "membership", ["user_id"], unique=False)
    op.create_table(
        "pullrequest",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repo_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("head_sha", sa.String(), nullable=False),
        sa.Column("target_branch", sa.String(), nullable=False),
        sa.Column("merge_sha", sa.String(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repo_id"],
            ["repo.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("repo_id", "number"),
    )
    op.create_table(
        "schedule",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repo_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("cron", sa.String(), nullable=False),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.Column("branch", sa.String(), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=True),
        sa.Column("last_at", sa.Float(), nullable=True),
        sa.Column("last_verdict", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repo_id"],
            ["repo.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("repo_id", "name"),
    )
    op.create_index("ix_schedule_next_at", "schedule", ["next_at"], unique=False)
    op.create_table(
        "approval",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("build_id", sa.Integer(), nullable=False),
        sa.Column("binding", sa.String(), nullable=False),
        sa.Column("is_approved", sa.Boolean(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("user_name", sa.String(), nullable=False),
        sa.Column("decided_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["build_id"],
            ["build.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("build_id"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repo_id", sa.Integer(), nullable=False),
        sa.Column("build_id", sa.Integer(), nullable=False),
        sa.Column("sha", sa.String(), nullable=False),
        sa.Column("context", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("target_url", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("next_try_at", sa.Float(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("delivered_at", sa.Float(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["build_id"],
            ["build.id"],
        ),
        sa.ForeignKeyConstraint(
            ["repo_id"],
            ["repo.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("repo_id", "sha", "context", "sequence"),
    )
    op.create_index("ix_outbox_build_id", "outbox", ["build_id"], unique=False)
    op.create_index("ix_outbox_next_try_at", "outbox", ["next_try_at"], unique=False)
    op.add_column(
        "build", sa.Column("needs_approval", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("hook", sa.Column("old_secret", sa.LargeBinary(), nullable=True))
    op.add_column("hook", sa.Column("old_secret_until", sa.Float(), nullable=True))
    op.add_column("inbox", sa.Column("forge_event", sa.String(), nullable=False, server_default=""))
    op.add_column("job", sa.Column("kept_from", sa.Integer(), nullable=True))
    op.add_column("repo", sa.Column("is_enabled", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("repo", sa.Column("config_path", sa.String(), nullable=False, server_default=""))
    op.add_column("repo", sa.Column("timeout_minutes", sa.Integer(), nullable=False, server_default="60"))
    op.add_column(
        "repo", sa.Column("is_superseding", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("repo", sa.Column("builds_merge", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("repo", sa.Column("approval", sa.String(), nullable=False, server_default="forks"))
    op.add_column("repo", sa.Column("keep_builds_days", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("repo", sa.Column("keep_logs_days", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("repo", sa.Column("api_url", sa.String(), nullable=False, server_default=""))
    op.add_column("repo", sa.Column("credential_kind", sa.String(), nullable=False, server_default=""))
    op.add_column("repo", sa.Column("credential_user", sa.String(), nullable=False, server_default=""))
    op.add_column("repo", sa.Column("credential", sa.LargeBinary(), nullable=True))
    op.add_column("repo", sa.Column("forge_problem", sa.String(), nullable=False, server_default=""))
    op.add_column("repo", sa.Column("forge_problem_at", sa.Float(), nullable=True))
    op.add_column("runner", sa.Column("is_paused", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("runner", sa.Column("lost_leases", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("session", sa.Column("seen_at", sa.Float(), nullable=True))
    op.add_column("session", sa.Column("address", sa.String(), nullable=False, server_default=""))
    op.add_column("session", sa.Column("software", sa.String(), nullable=False, server_default=""))
    op.add_column(
        "token", sa.Column("scopes", sa.JSON(), nullable=False, server_default='["read", "write", "admin"]')
    )
    op.add_column("token", sa.Column("expires_at", sa.Float(), nullable=True))
    op.add_column("token", sa.Column("used_at", sa.Float(), nullable=True))
    op.add_column("user", sa.Column("is_disabled", sa.Boolean(), nullable=False, server_default=sa.false()))
    for table in ("user", "repo", "inbox", "build", "runner", "job"):
        _never_give_an_id_again(table)


def _never_give_an_id_again(table: str) -> None:
    """SQLite gives the id of a deleted newest row to the next one, unless the table says AUTOINCREMENT; that
    can only be said when a table is made, so it is made anew. Checks are not copied, so they are named."""
    checks = (sa.CheckConstraint(_STATUSES, name=f"{table}_status"),) if table in ("build", "job") else ()
    options = {"sqlite_autoincrement": True}
    with op.batch_alter_table(table, recreate="always", table_args=checks, table_kwargs=options):
        pass
