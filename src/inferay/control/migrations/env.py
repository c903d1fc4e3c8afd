"""Alembic's entry point: migrates the connection that the control plane hands in."""

from __future__ import annotations

from alembic import context

from inferay.control.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
