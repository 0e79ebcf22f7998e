"""Bring a database to the present schema, and say whether it is there."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from alembic import command
from app.db.session import Database
from app.db.trouble import in_our_words
from app.domain.errors import Transient

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]


def _config(url: str) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    return config


def upgrade(url: str, patience: timedelta = timedelta(0), stopped: Callable[[], bool] = lambda: False) -> None:
    """Run all migrations that are missing, as one transaction; safe to repeat, and safe from several processes.

    A database that is away, because it is starting too, is waited for as long as `patience` allows and `stopped` does
    not say otherwise.

    Raises:
        Transient: the database is away or cannot be written.
    """
    end = time.monotonic() + patience.total_seconds()
    while True:
        try:
            with in_our_words():
                return command.upgrade(_config(url), "head")
        except Transient as error:
            if stopped() or time.monotonic() >= end:
                raise
            log.warning("migrate.waiting", extra={"reason": error.reason, "remedy": error.remedy})
        time.sleep(1)


def is_current(database: Database, url: str) -> bool:
    """Whether the schema is the one that this code expects.

    Raises:
        Transient: the database is away.
    """
    head = ScriptDirectory.from_config(_config(url)).get_current_head()
    with database.read() as session:
        connection = session.connection()
        return MigrationContext.configure(connection).get_current_revision() == head
