"""What a webhook says is kept with it, and the ledger says of each change whether its webhook came."""

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("changes") as batch:
        batch.add_column(sa.Column("webhook", sa.String(length=8), nullable=True))
        due = sa.text("webhook = 'due'")
        batch.create_index("ix_changes_due", ["seen_at"], sqlite_where=due, postgresql_where=due)
    with op.batch_alter_table("deliveries") as batch:
        batch.add_column(sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("field", sa.Text(), nullable=True))
        batch.add_column(sa.Column("version", sa.String(length=255), nullable=True))
        batch.add_column(sa.Column("value", sa.Text(), nullable=True))
        batch.add_column(sa.Column("change_id", sa.Integer(), nullable=True))
        batch.create_foreign_key(op.f("fk_deliveries_change_id_changes"), "changes", ["change_id"], ["id"])
        batch.create_index("ix_deliveries_received_at", ["received_at"])
        unread = sa.text("observed_at IS NULL")
        batch.create_index("ix_deliveries_unobserved", ["model"], sqlite_where=unread, postgresql_where=unread)


def downgrade() -> None:
    with op.batch_alter_table("deliveries") as batch:
        batch.drop_index("ix_deliveries_unobserved")
        batch.drop_index("ix_deliveries_received_at")
        batch.drop_constraint(op.f("fk_deliveries_change_id_changes"), type_="foreignkey")
        for name in ("change_id", "value", "version", "field", "sent_at"):
            batch.drop_column(name)
    with op.batch_alter_table("changes") as batch:
        batch.drop_index("ix_changes_due")
        batch.drop_column("webhook")
