"""request ids of jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward."""
    op.add_column("jobs", sa.Column("request_id", sa.String(length=36), nullable=True))
    op.create_index("ix_jobs_request_id", "jobs", ["request_id"], unique=True)


def downgrade() -> None:
    """Bring the schema back."""
    op.drop_index("ix_jobs_request_id", "jobs")
    op.drop_column("jobs", "request_id")
