"""What MLflow is told of a sweep, its studies and its trials, as letters for the ledger's outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sweeper.export import StudyName, TrialReport, cost_metrics, study_run, sweep_run, to_json, trial_run
from sweeper.ledger import sweeps
from sweeper.ledger.rows import Finished, Letter, SpaceProgress, Study, Sweep
from sweeper.records import Cost, RunRecord, Task


def opening_letters(sweep: Sweep, studies: Sequence[Study], *, reopens: bool = False) -> list[Letter]:
    """The runs of a sweep and of its studies that are launched or extended: under way, with what is fixed about them.

    Nothing where no study is, nor the sweep is opened again: then it has nothing more to do than it had.
    """
    start_ms = to_ms(sweep.created_at)
    runs = [study_run(study_name(sweep, study), start_ms=start_ms, params=study_params(study)) for study in studies]
    if not runs and not reopens:
        return []
    whole = sweep_run(sweep.name, sweep.uid, start_ms=start_ms, params=sweep_params(sweep))
    return [_letter(whole), *map(_letter, runs)]


def closing_letters(sweep: Sweep, studies: Mapping[int, Study], ended: Mapping[int, Finished]) -> list[Letter]:
    """The runs of those studies that are complete.

    Args:
        sweep: whose studies.
        studies: by id, at least those that are asked about.
        ended: by study, how its finished trials ended.
    """
    complete = {id_: finished for id_, finished in ended.items() if finished.trials >= studies[id_].trials}
    return [_closing_letter(sweep, studies[id_], finished) for id_, finished in complete.items()]


def last_letters(sweep: Sweep, progress: Sequence[SpaceProgress], cost: Cost) -> list[Letter]:
    """The run of a sweep, where all of it is complete.

    Args:
        sweep: which.
        progress: of all its spaces.
        cost: of all attempts of all its trials.
    """
    return [_ended(sweep, progress, cost)] if all(space.is_complete for space in progress) else []


def _ended(sweep: Sweep, progress: Sequence[SpaceProgress], cost: Cost, ended: str = "done") -> Letter:
    counts = {
        "trials": sum(space.finished for space in progress),
        "trials_failed": sum(space.failed for space in progress),
        "trials_pruned": sum(space.pruned for space in progress),
    }
    run = sweep_run(
        sweep.name,
        sweep.uid,
        start_ms=to_ms(sweep.created_at),
        end_ms=to_ms(datetime.now(UTC)),
        params=sweep_params(sweep),
        metrics={name: float(count) for name, count in counts.items()} | cost_metrics(cost),
        ended=ended,
    )
    return _letter(run)


def spent_letter(sweep: Sweep, progress: Sequence[SpaceProgress], cost: Cost) -> Letter:
    """The run of a sweep whose budget is spent before all of it is complete; see `last_letters`."""
    return _ended(sweep, progress, cost, ended=sweeps.SPENT)


def trial_letter(sweep: Sweep, study: Study, report: TrialReport, task: Task) -> Letter:
    """The run of a trial that ended."""
    return _letter(trial_run(study_name(sweep, study), report, task))


def study_name(sweep: Sweep, study: Study) -> StudyName:
    """A study's name in MLflow."""
    return StudyName(sweep.name, sweep.token, study.space, study.replicate)


def sweep_params(sweep: Sweep) -> dict[str, Any]:
    """What MLflow shows as a sweep's parameters: nothing that an extension changes."""
    config = sweep.config
    return {
        "data": config["data"]["source"],
        "model": config["model"]["kind"],
        "sampler": config["search"]["sampler"]["kind"],
        "mode": sweep.mode,
        "seed": config["seed"],
    }


def study_params(study: Study) -> dict[str, Any]:
    """What MLflow shows as a study's parameters."""
    arguments = study.sampler.get("arguments", {})
    named = {f"sampler.{name}": value for name, value in arguments.items() if isinstance(value, str | int | float)}
    return {"space": study.space, "replicate": study.replicate, "dimensions": study.dimensions} | {
        "sampler": study.sampler["kind"],
        **named,
    }


def to_ms(moment: datetime) -> int:
    """A moment as MLflow counts: milliseconds since the epoch (UTC)."""
    return round(moment.timestamp() * 1000)


def _closing_letter(sweep: Sweep, study: Study, ended: Finished) -> Letter:
    loss = ended.best_validation_loss
    best = {} if loss is None else {"best.validation_loss": loss}
    counts = {"trials": ended.trials, "trials_failed": ended.failed, "trials_pruned": ended.pruned}
    return _letter(
        study_run(
            study_name(sweep, study),
            start_ms=to_ms(sweep.created_at),
            end_ms=to_ms(datetime.now(UTC)),
            params=study_params(study),
            metrics=best | {name: float(count) for name, count in counts.items()},
        )
    )


def _letter(run: RunRecord) -> Letter:
    return Letter(run.uid, run.status, to_json(run))
