"""The database: SQLite in the workspace by default, PostgreSQL by URL; migrated at start.

SQLite runs with a write-ahead log, `BEGIN IMMEDIATE` (a deferred transaction that reads and then
writes fails at once under contention) and full synchronisation: what was answered is on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.orm import Session

#: How long a writer waits for another one.
BUSY_TIMEOUT_MS = 10_000


class Database:
    """Sessions on the control plane's database; safe to share between threads."""

    def __init__(self, url: str | URL) -> None:
        self.engine = create_engine(url)
        self._write_lock = threading.Lock()
        if self.engine.dialect.name == "sqlite":
            _set_up_sqlite(self.engine)

    @classmethod
    def in_file(cls, path: Path) -> Database:
        """Return the SQLite database in a file, made if need be."""
        return cls(URL.create("sqlite", database=str(path)))

    def migrate(self) -> None:
        """Bring the schema to this version; idempotent; blocks."""
        config = Config()
        scripts = str(Path(__file__).parent / "migrations")
        config.set_main_option("script_location", scripts.replace("%", "%%"))
        with self.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session whose changes are committed at the end, all or none."""
        session = Session(self.engine, expire_on_commit=False)
        with self._write_lock, session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session for reading; its objects stay usable afterwards."""
        reading = self.engine.execution_options(inferay_read=True)
        with Session(reading, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None   # the driver's own BEGIN is deferred: we send ours
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        is_read = connection.get_execution_options().get("inferay_read", False)
        connection.exec_driver_sql("BEGIN" if is_read else "BEGIN IMMEDIATE")
