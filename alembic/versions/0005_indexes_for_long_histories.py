"""Indexes that keep the engine's questions quick however much has ended, was sent or was answered before."""

import sqlalchemy as sa

from alembic import op

revision = "0005"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    unsent = sa.text("next_try_at IS NOT NULL")
    op.create_index("ix_outbox_unsent", "outbox", ["model", "id"], sqlite_where=unsent, postgresql_where=unsent)
    op.create_index(op.f("ix_outbox_done_at"), "outbox", ["done_at"])
    op.drop_index(op.f("ix_outbox_model"), "outbox")
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_idempotency_created_at"), "idempotency")
    op.create_index(op.f("ix_outbox_model"), "outbox", ["model"])
    op.drop_index(op.f("ix_outbox_done_at"), "outbox")
    op.drop_index("ix_outbox_unsent", "outbox")
