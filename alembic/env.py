"""Runs migrations on the database that HEADGATE_DATABASE_URL names, in one transaction each."""

from alembic import context
from app.db.models import Base
from app.db.session import Database
from app.settings import Settings


def migrate() -> None:
    url = context.config.attributes.get("url") or Settings().database
    database = Database(url)
    with database.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()
    database.close()


migrate()
