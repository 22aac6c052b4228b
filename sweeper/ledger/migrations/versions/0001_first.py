"""The first tables and the views that answer what each space cost."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TRIAL_COSTS = """
CREATE VIEW trial_costs AS
SELECT sweep.name AS sweep, study.space, study.replicate, trial.number, trial.state,
       trial.validation_loss, trial.test_loss,
       count(attempt.id) AS attempts,
       sum(attempt.steps) AS steps, sum(attempt.epochs) AS epochs, sum(attempt.examples) AS examples,
       sum(attempt.flops) AS flops,
       sum(attempt.train_s) AS train_s, sum(attempt.evaluate_s) AS evaluate_s,
       sum(attempt.train_s + attempt.evaluate_s) AS device_s,
       sum(attempt.suggest_s) AS suggest_s, sum(attempt.storage_s) AS storage_s
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
       min(validation_loss) AS best_validation_loss,
       sum(attempts) AS attempts, sum(epochs) AS epochs, sum(flops) AS flops,
       sum(device_s) AS device_s, sum(suggest_s) AS suggest_s, sum(storage_s) AS storage_s
FROM trial_costs
GROUP BY sweep, space
"""


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "sweep",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("token", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("file_path", sa.Text(), nullable=False),
        sa.Column("file_text", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("data_sha256", sa.String(length=64), nullable=False),
        sa.Column("numerics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep")),
        sa.UniqueConstraint("name", name=op.f("uq_sweep_name")),
        sa.UniqueConstraint("token", name=op.f("uq_sweep_token")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process_started", sa.Double(), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("refusals", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("run_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name=op.f("fk_outbox_sweep_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("uid", "status", name=op.f("uq_outbox_uid_status")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_outbox_sweep_id_delivered_at_id"), "outbox", ["sweep_id", "delivered_at", "id"], unique=False
    )
    op.create_table(
        "study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("space", sa.String(length=200), nullable=False),
        sa.Column("replicate", sa.Integer(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("sampler", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("proposer_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["proposer_id"], ["worker.id"], name=op.f("fk_study_proposer_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name=op.f("fk_study_sweep_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
        sa.UniqueConstraint("sweep_id", "space", "replicate", name=op.f("uq_study_sweep_id_space_replicate")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "worker_time",
        sa.Column("worker_id", sa.Integer(), nullable=False),
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name=op.f("fk_worker_time_sweep_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["worker_id"], ["worker.id"], name=op.f("fk_worker_time_worker_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("worker_id", "sweep_id", "kind", name=op.f("pk_worker_time")),
    )
    op.create_table(
        "trial",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Integer(), nullable=True),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("keep_prob", sa.JSON(), nullable=False),
        sa.Column("lambda", sa.JSON(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.Column("running", sa.JSON(), nullable=False),
        sa.Column("suggest_s", sa.Double(), nullable=False),
        sa.Column("validation_loss", sa.Double(), nullable=True),
        sa.Column("validation_metric", sa.Double(), nullable=True),
        sa.Column("test_loss", sa.Double(), nullable=True),
        sa.Column("test_metric", sa.Double(), nullable=True),
        sa.Column("train_loss", sa.Double(), nullable=True),
        sa.Column("best_epoch", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_trial_study_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["worker_id"], ["worker.id"], name=op.f("fk_trial_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trial")),
        sa.UniqueConstraint("study_id", "number", name=op.f("uq_trial_study_id_number")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_trial_state_number"), "trial", ["state", "number"], unique=False)
    op.create_index(op.f("ix_trial_worker_id"), "trial", ["worker_id"], unique=False)
    op.create_table(
        "attempt",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.Column("epochs", sa.BigInteger(), nullable=False),
        sa.Column("examples", sa.BigInteger(), nullable=False),
        sa.Column("flops", sa.BigInteger(), nullable=False),
        sa.Column("train_s", sa.Double(), nullable=False),
        sa.Column("evaluate_s", sa.Double(), nullable=False),
        sa.Column("suggest_s", sa.Double(), nullable=False),
        sa.Column("storage_s", sa.Double(), nullable=False),
        sa.Column("checkpoint_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_attempt_trial_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["worker_id"], ["worker.id"], name=op.f("fk_attempt_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempt")),
        sa.UniqueConstraint("trial_id", "attempt", name=op.f("uq_attempt_trial_id_attempt")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_attempt_worker_id"), "attempt", ["worker_id"], unique=False)
    op.create_table(
        "fit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("fold", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("best_epoch", sa.Integer(), nullable=False),
        sa.Column("train_loss", sa.Double(), nullable=True),
        sa.Column("validation_loss", sa.Double(), nullable=True),
        sa.Column("validation_metric", sa.Double(), nullable=True),
        sa.Column("test_loss", sa.Double(), nullable=True),
        sa.Column("test_metric", sa.Double(), nullable=True),
        sa.Column("squared_norms", sa.JSON(), nullable=False),
        sa.Column("curves", sa.JSON(), nullable=False),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.Column("epochs", sa.BigInteger(), nullable=False),
        sa.Column("examples", sa.BigInteger(), nullable=False),
        sa.Column("flops", sa.BigInteger(), nullable=False),
        sa.Column("train_s", sa.Double(), nullable=False),
        sa.Column("evaluate_s", sa.Double(), nullable=False),
        sa.Column("suggest_s", sa.Double(), nullable=False),
        sa.Column("storage_s", sa.Double(), nullable=False),
        sa.Column("checkpoint_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempt.id"], name=op.f("fk_fit_attempt_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fit")),
        sa.UniqueConstraint("attempt_id", "fold", name=op.f("uq_fit_attempt_id_fold")),
    )
    op.execute(TRIAL_COSTS)
    op.execute(SPACE_COSTS)
