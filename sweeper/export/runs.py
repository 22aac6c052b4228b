"""What a sweep, a study and a trial look like as MLflow runs; pure functions from plain records to `RunRecord`s.

Layout: an experiment per sweep with a run of its own, below it a run per study, and below each a run per trial; the
tag `sweeper.kind` says which of the three a run is.

- Params: the whole setting in every space, `keep_prob_0` .. `keep_prob_{L-1}` and `lambda_1` .. `lambda_L`,
  so that MLflow's parallel-coordinates and scatter plots compare spaces; then what the sampler drew, where
  its name differs.
- Curves, a point per epoch: `train_loss`, `train_loss_dropped`, `validation_loss`, `train_accuracy`,
  `validation_accuracy` (`_rmse` for regression). With several folds a point is the mean over all folds, and
  the curves end with the fold that ends first: a mean over fewer folds would be another curve.
- Final metrics never share a key with a curve, whose last point they would change: `best.*` (at the best
  epoch, mean over folds), `fold_0.*` (each fold's own, where there are several), `cost.*`, `squared_norm_1`
  .. `squared_norm_L`. MLflow sorts columns by key, so what people look for, `best.*`, comes first.
- Numbers that are not finite stay as they are here and in the outbox; `sweeper.export.mlflow` says what
  becomes of them in MLflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum

from sweeper.records import (
    Cost,
    FitResult,
    Outcome,
    ParameterValue,
    RunRecord,
    Score,
    Setting,
    Task,
    TrialState,
)

NOTE = "mlflow.note.content"  # MLflow shows this tag as the run's description
KIND = "sweeper.kind"
_STATUS = {
    TrialState.WAITING: "RUNNING",
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.FAIL: "FAILED",
}


class Kind(StrEnum):
    """What a run tells of; the value of its tag `sweeper.kind`."""

    SWEEP = "sweep"
    STUDY = "study"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class StudyName:
    """Which study of which sweep.

    Attributes:
        sweep: the sweep's name.
        token: tells it apart from other sweeps of that name, in this tracking store or another ledger.
        space: name of the search space.
        replicate: from 0.
    """

    sweep: str
    token: str
    space: str
    replicate: int

    @property
    def sweep_uid(self) -> str:
        """The uid of the sweep's run."""
        return f"{self.sweep}-{self.token}"

    @property
    def uid(self) -> str:
        """The uid of the study's run."""
        return f"{self.sweep_uid}/{self.space}/r{self.replicate:02d}"

    def trial_uid(self, number: int) -> str:
        """Name the run of the study's trial `number`."""
        return f"{self.uid}/t{number:04d}"


@dataclass(frozen=True, slots=True)
class TrialReport:
    """A trial that ended, and all that its run shows.

    Attributes:
        number: order in its study, from 0.
        state: how it ended.
        setting: what was tried; parameters: what the sampler drew for it, by the sampler's names.
        fits: one per fold, in the folds' order; empty where it failed before any ended.
        cost: of all its attempts.
        start_ms, end_ms: true times, milliseconds since the epoch (UTC).
        worker, device: who trained it, on what.
        tags: anything more, e.g. git commit or data hash.
        error: why it is not complete.
    """

    number: int
    state: TrialState
    setting: Setting
    parameters: Mapping[str, ParameterValue]
    fits: Sequence[FitResult]
    cost: Cost
    start_ms: int
    end_ms: int
    worker: str = ""
    device: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


def sweep_experiment(name: str) -> str:
    """Name the MLflow experiment of a sweep, out of the way of other people's on the same server."""
    return f"sweeper/{name}"


def sweep_run(
    name: str,
    uid: str,
    *,
    start_ms: int,
    end_ms: int | None = None,
    params: Mapping[str, ParameterValue] | None = None,
    metrics: Mapping[str, float] | None = None,
    ended: str = "done",
) -> RunRecord:
    """Build the run of a sweep: first when it is launched, again under the same uid when all of it is done.

    Args:
        name: of the sweep.
        uid: of the sweep.
        start_ms: when it was launched, milliseconds since the epoch (UTC).
        end_ms: when it was complete, or ended otherwise; None while it runs.
        params: what is fixed for the sweep; they can't change once delivered.
        metrics: counts and costs of all its trials.
        ended: how, where it has ended.
    """
    return RunRecord(
        uid=uid,
        experiment=sweep_experiment(name),
        parent=None,
        name=name,
        status="RUNNING" if end_ms is None else "FINISHED",
        start_ms=start_ms,
        end_ms=end_ms,
        params={key: _text(value) for key, value in (params or {}).items()},
        tags={
            KIND: Kind.SWEEP.value,
            "sweeper.state": "running" if end_ms is None else ended,
            "sweeper.sweep": name,
            "sweeper.uid": uid,
            "mlflow.source.name": "sweeper",
            NOTE: "The sweep as a whole. Once every trial has ended, its report is among the artifacts: `report.html`.",
        },
        metrics=dict(metrics or {}),
    )


def study_run(
    study: StudyName,
    *,
    start_ms: int,
    end_ms: int | None = None,
    params: Mapping[str, ParameterValue] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    note: str = "",
) -> RunRecord:
    """Build the run of a study: first when it starts, again under the same uid when it ends.

    Args:
        study: whose run.
        start_ms: when it started, milliseconds since the epoch (UTC).
        end_ms: when it ended; None while it runs.
        params: what is fixed for the study, e.g. sampler and budget; they can't change once delivered.
        metrics: final values, e.g. the best trial's and the study's costs.
        tags: anything more.
        note: description in Markdown.
    """
    return RunRecord(
        uid=study.uid,
        experiment=sweep_experiment(study.sweep),
        parent=study.sweep_uid,
        name=f"{study.space} r{study.replicate:02d}",
        status="RUNNING" if end_ms is None else "FINISHED",
        start_ms=start_ms,
        end_ms=end_ms,
        params={name: _text(value) for name, value in (params or {}).items()},
        tags=_said({**(tags or {}), **_study_tags(study, Kind.STUDY), "sweeper.uid": study.uid, NOTE: note}),
        metrics=dict(metrics or {}),
    )


def trial_run(study: StudyName, trial: TrialReport, task: Task) -> RunRecord:
    """Build the child run of a trial that ended.

    Args:
        study: the parent.
        trial: what was tried and what came of it.
        task: names the metric: accuracy, or RMSE for regression.
    """
    metric = metric_name(task)
    uid = study.trial_uid(trial.number)
    return RunRecord(
        uid=uid,
        experiment=sweep_experiment(study.sweep),
        parent=study.uid,
        name=f"{study.space} r{study.replicate:02d} t{trial.number:04d}",
        status=_STATUS[trial.state],
        start_ms=trial.start_ms,
        end_ms=trial.end_ms,
        params=setting_params(trial.setting, trial.parameters),
        tags=_said({**trial.tags, **_study_tags(study, Kind.TRIAL), **_trial_tags(trial, metric), "sweeper.uid": uid}),
        metrics=_told(trial, _finals(trial.fits, metric)) | cost_metrics(trial.cost),
        curves=_curves(trial.fits, metric),
        epoch_ms=tuple(max(score.at_ms for score in epoch) for epoch in _epochs(trial.fits)),
    )


def metric_name(task: Task) -> str:
    """Give the short name of a task's metric."""
    return "rmse" if task is Task.REGRESSION else "accuracy"


def setting_params(setting: Setting, parameters: Mapping[str, ParameterValue] | None = None) -> dict[str, str]:
    """Write a setting layer by layer, then the sampler's own parameters where their names differ.

    Args:
        setting: keep_prob and lambda_ of L weight layers.
        parameters: what the sampler drew; a name that is also a layer's shows the layer's value.

    Returns:
        `keep_prob_0` .. `keep_prob_{L-1}`, `lambda_1` .. `lambda_L`, others; floats with all their digits.
    """
    layers = {f"keep_prob_{layer}": _text(keep) for layer, keep in enumerate(setting.keep_prob)}
    layers |= {f"lambda_{layer}": _text(lambda_) for layer, lambda_ in enumerate(setting.lambda_, start=1)}
    return layers | {name: _text(value) for name, value in (parameters or {}).items() if name not in layers}


def cost_metrics(cost: Cost) -> dict[str, float]:
    """Give each cost as a metric `cost.*`; `cost.device_s` is training and evaluation together.

    There is a `cost.joules` only where the energy was measured.
    """
    amounts = {part.name: getattr(cost, part.name) for part in fields(cost)}
    if cost.joules is None or math.isnan(cost.joules):
        del amounts["joules"]
    return {f"cost.{name}": float(amount) for name, amount in amounts.items()} | {"cost.device_s": cost.device_s}


def _finals(fits: Sequence[FitResult], metric: str) -> dict[str, float]:
    if not fits:
        return {}
    folds = [_fit_finals(fit, metric) for fit in fits]
    metrics = {f"best.{key}": _mean([fold[key] for fold in folds]) for key in folds[0]}
    norms = zip(*(fit.squared_norms for fit in fits), strict=True)
    metrics |= {f"squared_norm_{layer}": _mean(values) for layer, values in enumerate(norms, start=1)}
    if len(folds) > 1:
        metrics |= {f"fold_{i}.{key}": value for i, fold in enumerate(folds) for key, value in fold.items()}
    return metrics


def _told(trial: TrialReport, metrics: dict[str, float]) -> dict[str, float]:
    """What is told of a trial: of one that was pruned, nothing about the test rows, which it never saw."""
    if trial.state is not TrialState.PRUNED:
        return metrics
    return {key: value for key, value in metrics.items() if ".test_" not in key}


def _fit_finals(fit: FitResult, metric: str) -> dict[str, float]:
    return {
        "epoch": float(fit.best_epoch),
        "train_loss": fit.train_loss,
        "validation_loss": fit.validation_loss,
        f"validation_{metric}": fit.validation_metric,
        "test_loss": fit.test_loss,
        f"test_{metric}": fit.test_metric,
    }


def _curves(fits: Sequence[FitResult], metric: str) -> dict[str, tuple[float, ...]]:
    values: dict[str, Callable[[Score], float]] = {
        "train_loss": lambda score: score.train_loss,
        "train_loss_dropped": lambda score: score.train_loss_dropped,
        "validation_loss": lambda score: score.validation_loss,
        f"train_{metric}": lambda score: score.train_metric,
        f"validation_{metric}": lambda score: score.validation_metric,
    }
    epochs = _epochs(fits)
    if not epochs:
        return {}
    return {key: tuple(_mean([value(s) for s in epoch]) for epoch in epochs) for key, value in values.items()}


def _epochs(fits: Sequence[FitResult]) -> list[tuple[Score, ...]]:
    """Group scores by epoch, for as long as all fits ran."""
    return list(zip(*(fit.scores for fit in fits), strict=False))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)  # not fmean, which raises where infinities of both signs meet


def _study_tags(study: StudyName, kind: Kind) -> dict[str, str]:
    return {
        KIND: kind.value,
        "sweeper.sweep": study.sweep,
        "sweeper.space": study.space,
        "sweeper.replicate": str(study.replicate),
        "mlflow.source.name": "sweeper",
    }


def _trial_tags(trial: TrialReport, metric: str) -> dict[str, str]:
    return {
        "sweeper.trial": str(trial.number),
        "sweeper.state": trial.state.value,
        "sweeper.outcome": _outcome(trial.fits),
        "sweeper.worker": trial.worker,
        "sweeper.device": trial.device,
        NOTE: _note(trial, metric),
    }


def _outcome(fits: Sequence[FitResult]) -> str:
    """Say how the fits ended, the worst outcome last, each once."""
    ended = {fit.outcome for fit in fits}
    return "; ".join(outcome.value for outcome in Outcome if outcome in ended)


def _note(trial: TrialReport, metric: str) -> str:
    if not trial.fits:
        return f"Trial {trial.number} ended as {trial.state.value} before any fit did."
    best = _finals(trial.fits, metric)
    if trial.state is TrialState.PRUNED:
        return (
            f"{trial.error[:1].upper()}{trial.error[1:]}. Its lowest validation loss so far came at epoch "
            f"{best['best.epoch']:.3g}. It took {trial.cost.device_s:.3g} device-seconds."
        )
    return (
        f"Validation loss {best['best.validation_loss']:.4g} at epoch {best['best.epoch']:.3g}; "
        f"there test loss {best['best.test_loss']:.4g}, test {metric} {best[f'best.test_{metric}']:.4g}. "
        f"It took {trial.cost.device_s:.3g} device-seconds."
    )


def _said(tags: Mapping[str, str]) -> dict[str, str]:
    """Drop the tags that say nothing."""
    return {key: value for key, value in tags.items() if value}


def _text(value: ParameterValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(float(value)) if isinstance(value, float) else str(value)
