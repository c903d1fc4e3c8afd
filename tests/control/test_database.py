from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from inferay.control.database import Database
from inferay.control.tables import Base, Compute, Deployment

THREADS = 8
ROWS = 25


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.in_file(tmp_path / "control.db")
    database.migrate()
    yield database
    database.close()


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Compute)) or 0


def run_all(work: list[threading.Thread], failures: list[BaseException]) -> None:
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert failures == []


def test_threads_of_two_processes_write_at_once_and_nothing_is_lost(
    database: Database, tmp_path: Path
) -> None:
    """A second `Database` on the file shares no lock: it is what another process would be."""
    other = Database.in_file(tmp_path / "control.db")
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for row in range(ROWS):
                with (database, other)[number % 2].write() as session:
                    taken = session.scalar(select(func.count()).select_from(Compute)) or 0
                    session.add(Compute(name=f"{number}-{row}", properties={"order": taken}))
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        try:
            seen = 0
            while seen < THREADS * ROWS and not failures:
                now = count(database)
                assert now >= seen
                seen = now
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(THREADS)]
    run_all([*writers, threading.Thread(target=read)], failures)
    assert count(database) == THREADS * ROWS
    with database.read() as session:   # each one saw all that were written before it
        orders = sorted(row.properties["order"] for row in session.scalars(select(Compute)))
    assert orders == list(range(THREADS * ROWS))
    other.close()


def test_a_reader_sees_one_moment_while_others_write(database: Database) -> None:
    with database.read() as session:
        before = session.scalar(select(func.count()).select_from(Compute))
        with database.write() as writer:
            writer.add(Compute(name="new", properties={}))
        session.expire_all()
        assert session.scalar(select(func.count()).select_from(Compute)) == before
    assert count(database) == 1


def test_a_failed_transaction_leaves_nothing_and_frees_the_lock(database: Database) -> None:
    def fail() -> None:
        with database.write() as session:
            session.add(Compute(name="a", properties={}))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert count(database) == 0
    with database.write() as session:
        session.add(Compute(name="a", properties={}))
    assert count(database) == 1


def test_migrating_again_changes_nothing(database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        session.add(Compute(name="kept", properties={}))
    database.migrate()
    again = Database.in_file(tmp_path / "control.db")
    again.migrate()
    assert count(again) == 1
    again.close()


def test_the_migrations_give_exactly_the_tables_of_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Deployment(endpoint="ghost", name="d", state="Creating"))


def test_what_was_answered_is_on_disk(database: Database) -> None:
    with database.read() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000,
    }


def test_the_path_of_the_file_may_hold_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "100% of ?mine#&x=1"
    folder.mkdir()
    database = Database.in_file(folder / "control.db")
    database.migrate()
    assert count(database) == 0
    assert (folder / "control.db").exists()
    database.close()
