"""models in MLflow's registry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward."""
    op.add_column("assets", sa.Column("mlflow_version", sa.String(length=32), nullable=True))
    op.add_column("assets", sa.Column("mlflow_notice", sa.String(), nullable=True))
    op.add_column("assets", sa.Column(
        "labels", sa.JSON(), nullable=False, server_default=sa.text("'[]'")
    ))


def downgrade() -> None:
    """Bring the schema back."""
    op.drop_column("assets", "labels")
    op.drop_column("assets", "mlflow_notice")
    op.drop_column("assets", "mlflow_version")
