"""Rung scores for pruning; energy, occupancy and what was estimated beforehand; views that tell energy."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Energy is told only where every attempt that used the device was measured: a sum over some would pass for all.
TRIAL_COSTS = """
CREATE VIEW trial_costs AS
SELECT sweep.name AS sweep, study.space, study.replicate, trial.number, trial.state,
       trial.validation_loss, trial.test_loss,
       count(attempt.id) AS attempts,
       sum(attempt.steps) AS steps, sum(attempt.epochs) AS epochs, sum(attempt.examples) AS examples,
       sum(attempt.flops) AS flops,
       sum(attempt.train_s) AS train_s, sum(attempt.evaluate_s) AS evaluate_s,
       sum(attempt.train_s + attempt.evaluate_s) AS device_s,
       sum(attempt.suggest_s) AS suggest_s, sum(attempt.storage_s) AS storage_s,
       CASE WHEN sum(CASE WHEN attempt.joules IS NULL AND attempt.train_s + attempt.evaluate_s > 0
                          THEN 1 ELSE 0 END) = 0
            THEN sum(attempt.joules) END AS joules
FROM trial
JOIN study ON study.id = trial.study_id
JOIN sweep ON sweep.id = study.sweep_id
JOIN attempt ON attempt.trial_id = trial.id
GROUP BY trial.id, sweep.name, study.space, study.replicate, trial.number, trial.state,
         trial.validation_loss, trial.test_loss
"""

SPACE_COSTS = """
CREATE VIEW space_costs AS
SELECT sweep, space, count(DISTINCT replicate) AS studies, count(*) AS trials,
       sum(CASE WHEN state = 'COMPLETE' THEN 1 ELSE 0 END) AS complete,
       sum(CASE WHEN state = 'PRUNED' THEN 1 ELSE 0 END) AS pruned,
       min(CASE WHEN state = 'COMPLETE' THEN validation_loss END) AS best_validation_loss,
       sum(attempts) AS attempts, sum(epochs) AS epochs, sum(flops) AS flops,
       sum(device_s) AS device_s, sum(suggest_s) AS suggest_s, sum(storage_s) AS storage_s,
       CASE WHEN sum(CASE WHEN joules IS NULL AND device_s > 0 THEN 1 ELSE 0 END) = 0 THEN sum(joules) END AS joules
FROM trial_costs
GROUP BY sweep, space
"""


def upgrade() -> None:
    """Add what is new; rows that stand were not measured."""
    op.execute("DROP VIEW space_costs")
    op.execute("DROP VIEW trial_costs")
    op.add_column("attempt", sa.Column("joules", sa.Double(), nullable=True))
    op.add_column("fit", sa.Column("joules", sa.Double(), nullable=True))
    op.add_column("sweep", sa.Column("estimate", sa.JSON(), nullable=True))
    op.create_table(
        "rung",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_rung_trial_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "attempt", "epoch", name=op.f("pk_rung")),
    )
    op.create_table(
        "worker_meter",
        sa.Column("worker_id", sa.Integer(), nullable=False),
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("busy_steps", sa.BigInteger(), nullable=False),
        sa.Column("slot_steps", sa.BigInteger(), nullable=False),
        sa.Column("joules", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name=op.f("fk_worker_meter_sweep_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["worker_id"], ["worker.id"], name=op.f("fk_worker_meter_worker_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("worker_id", "sweep_id", name=op.f("pk_worker_meter")),
    )
    op.execute(TRIAL_COSTS)
    op.execute(SPACE_COSTS)
