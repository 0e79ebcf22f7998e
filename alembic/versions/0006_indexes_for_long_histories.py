"""Indexes that keep the engine's questions quick however much has ended, was sent or was answered before."""

import sqlalchemy as sa

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# The states of promotions that have not ended.
OPEN = "state IN ('APPROVAL', 'BUILD', 'CONVERT', 'GATES', 'PROVE', 'REQUESTED', 'ROLLOUT', 'SCAN', 'SNAPSHOT')"


def upgrade() -> None:
    for table in ("promotions", "releases"):
        op.create_index(f"ix_{table}_model_environment_id", table, ["model", "environment", "id"])
        op.drop_index(f"ix_{table}_model_environment", table)
    not_ended = {"sqlite_where": sa.text(OPEN), "postgresql_where": sa.text(OPEN)}
    op.create_index("ix_promotions_open", "promotions", ["model", "environment", "id"], **not_ended)
    unsent = sa.text("next_try_at IS NOT NULL")
    op.create_index("ix_outbox_unsent", "outbox", ["model", "id"], sqlite_where=unsent, postgresql_where=unsent)
    op.create_index(op.f("ix_outbox_done_at"), "outbox", ["done_at"])
    op.drop_index(op.f("ix_outbox_model"), "outbox")
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"])


def downgrade() -> None:
    op.drop_index("ix_promotions_open", "promotions")
    op.drop_index(op.f("ix_idempotency_created_at"), "idempotency")
    op.create_index(op.f("ix_outbox_model"), "outbox", ["model"])
    op.drop_index(op.f("ix_outbox_done_at"), "outbox")
    op.drop_index("ix_outbox_unsent", "outbox")
    for table in ("promotions", "releases"):
        op.create_index(f"ix_{table}_model_environment", table, ["model", "environment"])
        op.drop_index(f"ix_{table}_model_environment_id", table)
