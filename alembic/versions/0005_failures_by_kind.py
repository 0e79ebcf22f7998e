"""The failures of a promotion's present step by kind: how often, when, in which workers."""

import sqlalchemy as sa

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("promotions", sa.Column("failures", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("promotions", "failures")
