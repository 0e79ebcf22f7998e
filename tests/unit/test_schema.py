"""The migrated schema is the one that the models describe, and holds what the outside may send."""

import re

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from app.db.models import Base
from app.db.session import Database
from app.domain.promotion import ACTIVE, OPEN, State


def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


@pytest.mark.parametrize(("name", "states"), [("uq_promotions_active", ACTIVE), ("ix_promotions_open", OPEN)])
def test_an_index_of_some_promotions_knows_all_their_states(
    database: Database, name: str, states: frozenset[State]
) -> None:
    """Alembic does not compare the conditions of partial indexes."""
    indexes = {index["name"]: index for index in inspect(database.engine).get_indexes("promotions")}
    options = indexes[name]["dialect_options"]
    condition = options.get("sqlite_where", options.get("postgresql_where"))
    assert set(re.findall(r"'([A-Z_]+)'", str(condition))) == {state.value for state in states}
