"""online endpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward."""
    op.add_column("endpoints", sa.Column("secrets", sa.String(), nullable=True))
    op.add_column("endpoints", sa.Column(
        "key_digests", sa.JSON(), nullable=False, server_default=sa.text("'[]'")
    ))
    op.add_column("endpoints", sa.Column(
        "token_version", sa.Integer(), nullable=False, server_default=sa.text("1")
    ))
    op.add_column("deployments", sa.Column("instances", sa.Integer(), nullable=True))
    op.create_table(
        "revisions",
        sa.Column("endpoint", sa.String(length=64), nullable=False),
        sa.Column("deployment", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("application", sa.JSON(), nullable=False),
        sa.Column("is_live", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("modified_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["endpoint", "deployment"], ["deployments.endpoint", "deployments.name"]
        ),
        sa.PrimaryKeyConstraint("endpoint", "deployment", "name"),
    )


def downgrade() -> None:
    """Bring the schema back."""
    op.drop_table("revisions")
    op.drop_column("deployments", "instances")
    for name in ("token_version", "key_digests", "secrets"):
        op.drop_column("endpoints", name)
