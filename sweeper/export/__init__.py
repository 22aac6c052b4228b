"""From the ledger's outbox to MLflow: what runs look like, and how each comes to stand there exactly once."""

from sweeper.export.dashboard import Dashboard, dashboard_command
from sweeper.export.mlflow import MlflowSink, configure_process, prepare
from sweeper.export.outbox import (
    Claim,
    Delivery,
    Outbox,
    Progress,
    RunRefusedError,
    Sink,
    drain,
    from_json,
    to_json,
)
from sweeper.export.runs import (
    StudyName,
    TrialReport,
    cost_metrics,
    setting_params,
    study_run,
    sweep_experiment,
    sweep_run,
    trial_run,
)

__all__ = [
    "Claim",
    "Dashboard",
    "Delivery",
    "MlflowSink",
    "Outbox",
    "Progress",
    "RunRefusedError",
    "Sink",
    "StudyName",
    "TrialReport",
    "configure_process",
    "cost_metrics",
    "dashboard_command",
    "drain",
    "from_json",
    "prepare",
    "setting_params",
    "study_run",
    "sweep_experiment",
    "sweep_run",
    "to_json",
    "trial_run",
]
