"""Fencing tokens: a counter for each model and environment, which starts above every epoch given out so far."""

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fences",
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("environment", sa.String(length=255), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model", "environment", name=op.f("pk_fences")),
    )
    op.execute(
        "INSERT INTO fences (model, environment, token) "
        "SELECT model, environment, MAX(lease_epoch) FROM promotions GROUP BY model, environment"
    )


def downgrade() -> None:
    op.drop_table("fences")
