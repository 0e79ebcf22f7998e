"""People and machines with several tokens each, which end; identities of one person; identities of an issuer."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
# Tokens that were made without an end live on for the longest time that one may have: nobody is locked out today.
GRACE = timedelta(days=365)


def upgrade() -> None:
    columns = [sa.column(name) for name in ("name", "token_hash")]
    old = sa.table("principals", *columns, sa.column("created_at", sa.DateTime(timezone=True)))
    rows = op.get_bind().execute(sa.select(old)).all()
    with op.batch_alter_table("principals") as principals:
        principals.add_column(sa.Column("kind", sa.String(length=16), nullable=True))
        principals.add_column(sa.Column("person", sa.String(length=255), nullable=True))
        principals.add_column(sa.Column("issuer", sa.String(length=255), nullable=True))
        principals.add_column(sa.Column("subject", sa.String(length=255), nullable=True))
        principals.drop_constraint(op.f("uq_principals_token_hash"), type_="unique")
        principals.drop_column("token_hash")
    op.execute("UPDATE principals SET person = name, kind = CASE role WHEN 'ci' THEN 'machine' ELSE 'person' END")
    with op.batch_alter_table("principals") as principals:
        principals.alter_column("kind", existing_type=sa.String(length=16), nullable=False)
        principals.alter_column("person", existing_type=sa.String(length=255), nullable=False)
        principals.create_unique_constraint(op.f("uq_principals_issuer_subject"), ["issuer", "subject"])
        principals.create_index(op.f("ix_principals_person"), ["person"])
    _make_tokens([(row.name, row.token_hash, row.created_at) for row in rows])


def _make_tokens(old: list[tuple[str, str, datetime]]) -> None:
    tokens = op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("principal", sa.String(length=255), nullable=False),
        sa.Column("token_hash", sa.String(length=255), nullable=False),
        sa.Column("scopes", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["principal"], ["principals.name"], name=op.f("fk_tokens_principal_principals")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_tokens_token_hash")),
    )
    op.create_index(op.f("ix_tokens_principal"), "tokens", ["principal"])
    end = datetime.now(UTC) + GRACE
    kept = [
        {"principal": name, "token_hash": token_hash, "created_at": created_at, "expires_at": end}
        for name, token_hash, created_at in old
    ]
    if kept:
        op.bulk_insert(tokens, kept)


def downgrade() -> None:
    raise NotImplementedError("one name has several tokens now: restore the backup that was made before the upgrade")
