"""The migrated schema is the one that the models describe, and holds what the outside may send."""

import re

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from app.db.models import Base
from app.db.session import Database
from app.domain.promotion import ACTIVE


def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_index_that_keeps_a_place_for_one_promotion_knows_all_active_states(database: Database) -> None:
    """Alembic does not compare the conditions of partial indexes."""
    indexes = {index["name"]: index for index in inspect(database.engine).get_indexes("promotions")}
    options = indexes["uq_promotions_active"]["dialect_options"]
    condition = options.get("sqlite_where", options.get("postgresql_where"))
    assert set(re.findall(r"'([A-Z_]+)'", str(condition))) == {state.value for state in ACTIVE}
