"""What the ledger and MLflow are told of a trial that is over, and of what ends with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sweeper.export import TrialReport
from sweeper.ledger import deliveries, reads, sweeps, tallies
from sweeper.ledger.rows import Letter, Settlement, Study, Sweep
from sweeper.ledger.store import Connection
from sweeper.letters import closing_letters, last_letters, study_name, to_ms, trial_letter
from sweeper.records import Task
from sweeper.scheduler.cases import Case


def settlement(case: Case, sweep: Sweep, study: Study, task: Task, identity: Mapping[str, str]) -> Settlement:
    """Everything that one transaction keeps of a trial that ended now.

    Args:
        case: a trial that is over.
        sweep: whose trial.
        study: whose trial.
        task: names the metric.
        identity: worker and device by name.
    """
    ended_at = datetime.now(UTC)
    letter = trial_letter(sweep, study, _report(case, identity, ended_at), task)
    return Settlement(
        case.claimed, case.state, case.means, case.error, ended_at, case.cost, case.settled_fits, (letter,)
    )


def closings(
    connection: Connection, sweep: Sweep, studies: Mapping[int, Study], touched: Sequence[int]
) -> list[Letter]:
    """What MLflow is told where studies are complete now, and perhaps the sweep with them.

    Args:
        connection: the transaction that settled their last trials.
        sweep: whose studies.
        studies: by id.
        touched: the ids of those that may be complete.
    """
    near = tallies.perhaps_complete(connection, touched)
    if not near:  # whoever settles the last trial comes later
        return []
    sweeps.lock(connection, sweep.id)  # else two workers with one of the last two trials each would both miss one
    letters = closing_letters(sweep, studies, tallies.by_study(connection, near))
    if letters:
        progress, cost = reads.progress(connection, sweep.id), reads.total_cost(connection, sweep.id)
        letters += last_letters(sweep, progress, cost)
    return letters


def overlooked(connection: Connection, sweep: Sweep, studies: Mapping[int, Study]) -> list[int]:
    """Complete studies that nobody closed: who settled the last trial came before another's was committed."""
    uids = {id_: study_name(sweep, study).uid for id_, study in studies.items()}
    complete = tallies.perhaps_complete(connection, studies)
    closed = deliveries.ended(connection, [uids[id_] for id_ in complete])
    return [id_ for id_ in complete if uids[id_] not in closed]


def _report(case: Case, identity: Mapping[str, str], ended_at: datetime) -> TrialReport:
    claimed = case.claimed
    suggested_s = claimed.suggest_s if claimed.attempt == 1 else 0.0
    return TrialReport(
        number=claimed.number,
        state=case.state,
        setting=claimed.setting,
        parameters=claimed.params,
        fits=case.outcomes,
        cost=replace(case.cost, suggest_s=suggested_s),
        start_ms=to_ms(claimed.started_at),
        end_ms=to_ms(ended_at),
        worker=identity["worker"],
        device=identity["device"],
        error=case.error or "",
    )
