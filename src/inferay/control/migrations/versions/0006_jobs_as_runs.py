"""what MLflow was told of jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward."""
    op.add_column("jobs", sa.Column("tracked_as", sa.String(length=16), nullable=True))


def downgrade() -> None:
    """Bring the schema back."""
    op.drop_column("jobs", "tracked_as")
