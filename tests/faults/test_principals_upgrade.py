"""The upgrade from one token a name to several: nobody is locked out, and every token gets an end."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config

from alembic import command
from app.db.migrate import ROOT, upgrade
from app.db.session import Database
from app.domain.permissions import Role
from app.services import principals, tokens


def test_old_tokens_live_on_for_a_year(empty_database: Callable[[], str], tmp_path: Path) -> None:
    url = empty_database()
    config = Config(Path(ROOT) / "alembic.ini")
    config.attributes["url"] = url
    command.upgrade(config, "0008")
    made = datetime(2026, 1, 1, tzinfo=UTC)
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        columns: list[sa.ColumnClause[str]] = [sa.column(name) for name in ("name", "role", "token_hash")]
        table = sa.table("principals", *columns, sa.column("created_at", sa.DateTime(timezone=True)))
        for role in Role:
            secret = hashlib.sha256(f"hg_{role}".encode()).hexdigest()
            row = {"name": f"the-{role}", "role": role.value, "token_hash": secret, "created_at": made}
            connection.execute(sa.insert(table).values(row))
    upgrade(url)
    database = Database(url)
    for role in Role:
        caller = principals.authenticate(database, f"hg_{role}")
        assert (caller.name, caller.role, caller.counts_as) == (f"the-{role}", role, f"the-{role}")
        assert (caller.machine, caller.authenticated_at) == (role is Role.CI, made)
    for row in tokens.listed(database, "", 10)["items"]:
        (token,) = row["tokens"]
        left = datetime.fromisoformat(token["expires_at"]) - datetime.now(UTC)
        assert timedelta(days=364) < left <= timedelta(days=365)
    # there is an admin whose token counts, so that no other one is made
    assert not principals.bootstrap(database, tmp_path / "admin.token")
    database.close()
