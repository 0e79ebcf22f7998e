"""The audit trail becomes a Merkle tree (RFC 6962).

Leaves keep their number, time, kind and body; they are hashed anew, and one more leaf says what the chain of hashes
before ended in, so that a head that was kept elsewhere still counts."""

import hashlib
import json
import secrets
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from alembic import op
from app.domain.audit import leaf_data
from app.domain.merkle import Frontier, leaf_hash

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None

PAGE = 1000


def upgrade() -> None:
    op.create_table(
        "audit_nodes",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("level", "position", name=op.f("pk_audit_nodes")),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("size", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_audit_checkpoints")),
    )
    old = op.get_bind().execute(sa.text("SELECT seq, hash FROM audit_head")).one()
    op.drop_table("audit_head")
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("peaks", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    with op.batch_alter_table("audit_leaves") as leaves:
        leaves.drop_column("previous")
    tree = _hash_anew(old.seq, old.hash)
    head = sa.table("audit_head", sa.column("id"), sa.column("origin"), sa.column("size"), sa.column("peaks", sa.JSON))
    row = {"id": 1, "origin": f"headgate/{secrets.token_hex(8)}", "size": tree.size}
    op.get_bind().execute(sa.insert(head), [{**row, "peaks": [peak.hex() for peak in tree.peaks]}])


def _hash_anew(size: int, last: str) -> Frontier:
    """The tree over all leaves, and one more that says where the chain ended; an empty trail stays empty."""
    connection, tree, chained = op.get_bind(), Frontier(), f"sha256:{'0' * 64}"
    columns = [sa.column(name) for name in ("seq", "at", "kind", "hash")]
    leaves = sa.table("audit_leaves", *columns, sa.column("body", sa.JSON))
    while tree.size < size:
        page = sa.select(leaves).where(leaves.c.seq > tree.size).order_by(leaves.c.seq).limit(PAGE)
        rows = connection.execute(page).all()
        if not rows:
            raise RuntimeError(f"the audit trail should have {size} leaves and has {tree.size}: restore it first")
        for row in rows:
            chained = _link(row, chained)
            digest = leaf_hash(leaf_data(row.seq, row.at, row.kind, row.body))
            connection.execute(sa.update(leaves).where(leaves.c.seq == row.seq).values(hash=digest.hex()))
            _add(tree, digest)
    if chained != last:
        raise RuntimeError(f"the audit trail should end in {last} and ends in {chained}: restore it first")
    if size:
        at, body = datetime.now(UTC).isoformat(), {"from": "hash chain", "leaves": size, "head": last}
        digest = leaf_hash(leaf_data(size + 1, at, "trail.rehashed", body))
        added = {"seq": size + 1, "at": at, "kind": "trail.rehashed", "body": body, "hash": digest.hex()}
        connection.execute(sa.insert(leaves), [added])
        _add(tree, digest)
    return tree


def _link(row: sa.Row[Any], previous: str) -> str:
    """The leaf's hash in the old chain: hashing anew must not hide that a leaf was changed."""
    leaf = {"seq": row.seq, "at": row.at, "kind": row.kind, "body": row.body, "previous": previous}
    text = json.dumps(leaf, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    found = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    if found != row.hash:
        raise RuntimeError(f"leaf {row.seq} of the audit trail was changed: restore it before the upgrade")
    return found


def _add(tree: Frontier, digest: bytes) -> None:
    nodes = sa.table("audit_nodes", sa.column("level"), sa.column("position"), sa.column("hash", sa.LargeBinary))
    rows = [{"level": level, "position": index, "hash": found} for (level, index), found in tree.add(digest)]
    if rows:
        op.get_bind().execute(sa.insert(nodes), rows)


def downgrade() -> None:
    raise NotImplementedError("the chain of hashes is gone: restore the backup that was made before the upgrade")
