"""credentials of datastores."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward."""
    op.add_column("datastores", sa.Column("secrets", sa.String(), nullable=True))


def downgrade() -> None:
    """Bring the schema back."""
    op.drop_column("datastores", "secrets")
