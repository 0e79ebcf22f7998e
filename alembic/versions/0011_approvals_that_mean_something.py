"""Approvals know the person, when that person had authenticated, and whether the word was taken back; requests know the
person, too; the parts of each digest that stood for approval are kept."""

import sqlalchemy as sa

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "digests",
        sa.Column("promotion_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=255), nullable=False),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["promotion_id"], ["promotions.id"], name=op.f("fk_digests_promotion_id_promotions")),
        sa.PrimaryKeyConstraint("promotion_id", "digest", name=op.f("pk_digests")),
    )
    op.create_index(op.f("ix_digests_digest"), "digests", ["digest"])
    with op.batch_alter_table("promotions") as promotions:
        promotions.add_column(sa.Column("requester", sa.String(length=255), nullable=True))
    with op.batch_alter_table("approvals") as approvals:
        approvals.add_column(sa.Column("person", sa.String(length=255), nullable=True))
        approvals.add_column(sa.Column("authenticated_at", sa.DateTime(timezone=True), nullable=True))
        approvals.add_column(sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True))
        approvals.add_column(sa.Column("revoked_by", sa.String(length=255), nullable=True))
    op.execute("UPDATE approvals SET person = principal")
    with op.batch_alter_table("approvals") as approvals:
        approvals.alter_column("person", existing_type=sa.String(length=255), nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("approvals") as approvals:
        for column in ("revoked_by", "revoked_at", "authenticated_at", "person"):
            approvals.drop_column(column)
    with op.batch_alter_table("promotions") as promotions:
        promotions.drop_column("requester")
    op.drop_index(op.f("ix_digests_digest"), "digests")
    op.drop_table("digests")
