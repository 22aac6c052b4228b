"""Receipts of transactions, for clients whose server went away before it answered a COMMIT; where a worker's pid is."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add what is new; workers that stand are judged by their leases alone."""
    op.add_column("worker", sa.Column("place", sa.String(length=255), nullable=True))
    op.create_table(
        "receipt",
        sa.Column("client", sa.String(length=16), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("client", name="pk_receipt"),
    )
