"""Bring a database to the present schema, and say whether it is there."""

from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from alembic import command
from app.db.session import Database

ROOT = Path(__file__).resolve().parents[2]


def _config(url: str) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = url
    return config


def upgrade(url: str) -> None:
    """Run all migrations that are missing; safe to repeat."""
    command.upgrade(_config(url), "head")


def is_current(database: Database, url: str) -> bool:
    """Whether the schema is the one that this code expects."""
    head = ScriptDirectory.from_config(_config(url)).get_current_head()
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() == head
