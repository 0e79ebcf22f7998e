"""What the salted hashes stand for that leaves hold in the place of names and typed words."""

import sqlalchemy as sa

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "openings",
        sa.Column("token", sa.String(255), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("person", sa.String(255), nullable=False),
        sa.Column("salt", sa.String(255), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.create_index(op.f("ix_openings_person"), "openings", ["person"])
    one_each = sa.text("kind = 'person'")
    op.create_index(
        "uq_openings_person", "openings", ["person"], unique=True, sqlite_where=one_each, postgresql_where=one_each
    )


def downgrade() -> None:
    op.drop_table("openings")
