"""What finds the attempts that ended within the last minute, whatever came before: `status` counts them."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_attempt_ended_at_worker_id_state", "attempt", ["ended_at", "worker_id", "state"])
