"""Trials that fail again and again; what workers may spend of a budget; sweeps whose numerics nobody chose yet."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add what is new: nothing failed so far, and nothing was granted."""
    op.add_column("trial", sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("trial", sa.Column("losses", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("attempt", sa.Column("error", sa.Text(), nullable=True))
    op.add_column("worker_meter", sa.Column("granted_s", sa.Double(), nullable=False, server_default="0"))
    op.add_column("worker_meter", sa.Column("granted_joules", sa.Double(), nullable=False, server_default="0"))
