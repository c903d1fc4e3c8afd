"""keys of issuers outside."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward."""
    op.add_column("endpoints", sa.Column(
        "trusted_keys", sa.JSON(), nullable=False, server_default=sa.text("'[]'")
    ))


def downgrade() -> None:
    """Bring the schema back."""
    op.drop_column("endpoints", "trusted_keys")
