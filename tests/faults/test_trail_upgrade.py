"""A trail that was a chain of hashes becomes a tree: its leaves stay, and none that was changed slips through."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config

from alembic import command
from app.db.migrate import ROOT, upgrade
from app.db.session import Database
from app.services import trail


def chained(url: str, count: int) -> str:
    """A database as it was before, with so many leaves in its chain; returns the chain's head."""
    config = Config(Path(ROOT) / "alembic.ini")
    config.attributes["url"] = url
    command.upgrade(config, "0006")
    previous, rows = f"sha256:{'0' * 64}", []
    for seq in range(1, count + 1):
        leaf = {"seq": seq, "at": "2026-01-01T00:00:00+00:00", "kind": "test", "body": {"n": seq, "share": 1e-5 * seq}}
        text = json.dumps({**leaf, "previous": previous}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        rows.append({**leaf, "body": json.dumps(leaf["body"]), "previous": previous, "hash": digest})
        previous = digest
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        insert = "INSERT INTO audit_leaves (seq, at, kind, body, previous, hash)"
        connection.execute(sa.text(f"{insert} VALUES (:seq, :at, :kind, :body, :previous, :hash)"), rows)
        connection.execute(sa.text("UPDATE audit_head SET seq = :seq, hash = :hash"), {"seq": count, "hash": previous})
    return previous


def test_the_leaves_stay_and_the_old_head_is_among_them(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    head = chained(url, 1203)
    upgrade(url)
    database = Database(url)
    try:
        assert trail.verify(database).verified
        first, last = trail.page(database, 0, 1)[0], trail.page(database, 1203, 10)
        assert (first["at"], first["kind"], first["body"]) == (
            "2026-01-01T00:00:00+00:00",
            "test",
            {"n": 1, "share": 1e-5},
        )
        assert [leaf["body"] for leaf in last] == [{"from": "hash chain", "leaves": 1203, "head": head}]
    finally:
        database.close()


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("UPDATE audit_leaves SET at = 'later' WHERE seq = 3", "leaf 3 of the audit trail was changed"),
        ("DELETE FROM audit_leaves WHERE seq = 3", "leaf 4 of the audit trail was changed"),
        ("DELETE FROM audit_leaves WHERE seq = 5", "should have 5 leaves and has 4"),
    ],
)
def test_a_chain_that_was_changed_is_not_hashed_anew(empty_database: Callable[[], str], deed: str, words: str) -> None:
    url = empty_database()
    chained(url, 5)
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text(deed))
    with pytest.raises(RuntimeError, match=words):
        upgrade(url)
