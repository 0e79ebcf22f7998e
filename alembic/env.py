"""Runs all missing migrations on the database that HEADGATE_DATABASE_URL names: one transaction, one process at a time.

Whoever comes second waits, then finds nothing to do. Whoever is killed leaves the schema as it was before.
"""

import itertools

from sqlalchemy import Connection, event, text

from alembic import context
from app import failpoints
from app.db.models import Base
from app.db.session import Database
from app.settings import Settings

LOCK = 7_146_523_001  # any number that nobody else takes a lock on in this database
PATIENCE_S = 600


def migrate() -> None:
    database = Database(context.config.attributes.get("url") or Settings().database)
    try:
        with database.engine.connect() as connection:
            _be_patient(connection)
            _with_failpoints(connection)
            # On SQLite this begins with BEGIN IMMEDIATE, which is the lock. Alembic, which finds a transaction, opens
            # none of its own: what was applied before is read under the lock, and all of it is one commit.
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
                context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
                context.run_migrations()
                failpoints.reach("migration.commit.before")
            failpoints.reach("migration.commit.after")
    finally:
        database.close()


def _be_patient(connection: Connection) -> None:
    """Another process may be migrating a large table: wait longer for it than a request waits for its turn."""
    cursor = connection.connection.cursor()  # below SQLAlchemy, which would begin a transaction
    sqlite = connection.dialect.name == "sqlite"
    cursor.execute(f"PRAGMA busy_timeout = {PATIENCE_S * 1000}" if sqlite else f"SET lock_timeout = '{PATIENCE_S}s'")
    cursor.close()
    connection.connection.commit()


def _with_failpoints(connection: Connection) -> None:
    """A point after each statement, numbered; none while failpoints are inert."""
    if failpoints.FOLDER:
        numbers = itertools.count(1)
        event.listen(
            connection, "after_cursor_execute", lambda *_: failpoints.reach(f"migration.statement-{next(numbers)}")
        )


migrate()
