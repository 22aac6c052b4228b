"""The same kills against sweeper's ledger and against Optuna's RDBStorage with heartbeats, on the same PostgreSQL.

    python tests/benchmarks/chaos.py [TRIALS] [KILLS] [WORKERS]

Each trial is so many epochs that take their time and no arithmetic to speak of; a process trains one trial at a time.
SIGKILL strikes at moments and places drawn beforehand, and whoever was killed is started again at once. The last kill
falls before the work can be done.

    sweeper         `worker.work`, the whole of it: scheduler, ledger, leases; an engine of one slot, slowed down
    and saving      the same, with a checkpoint at each epoch
    Optuna          `Study.optimize` with RDBStorage(heartbeat_interval=1, grace_period=3), which is made to run
                    trials again by RetryHeartbeatStaleTrialCallback, and to stop by MaxTrialsCallback(COMPLETE)

Both sides see a lost process by its silence of 3 s alone, as on many machines; sweeper's looking up of a neighbour's
pid is switched off. Both search at random, so that samplers cost nothing. When all processes have ended, Optuna gets
one more `fail_stale_trials`, after the grace period.

Columns: trials finished once; lost: begun, and never finished by anybody; stuck: RUNNING for ever; twice: finished more
than once; extra: finished beyond what was asked for; rows: trials in the store; epochs trained beyond those needed.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.pop(0)  # `chaos` is the package among the tests, and not this file
sys.path.insert(0, str(Path(__file__).parents[1]))

from sqlalchemy import select

from chaos.faults import Values
from chaos.kennel import Dog, Kennel, Order, kennel, prepared
from postgres import NOT_DURABLE, Postgres, postgres
from processes import replace_function
from small import write_sweep
from sweeper.ledger import sweeps
from sweeper.ledger.schema import AttemptRow, TrialRow
from sweeper.ledger.store import Ledger
from sweeper.workload import differences

USUAL = 120, 40, 4  # trials, kills, processes
EPOCHS, EPOCH_S = 10, 0.1
BEAT_S, GRACE_S = 1, 3
DEADLINE_S = 600.0
ONE_SPACE = ("  both: {keep_prob: per_layer, lambda: per_layer}\n", "")


@dataclass(frozen=True)
class SlowEngine:
    """An epoch takes its time, what it computes included, and leaves a byte behind."""

    epochs: Path

    def arm(self) -> None:
        """Slow down this process's engine."""
        began = [0.0]

        def noted(launch: Callable[..., Any]) -> Callable[..., Any]:
            def start(*args: Any) -> Any:
                began[0] = time.monotonic()
                return launch(*args)

            return start

        def slowed(collect: Callable[..., Any]) -> Callable[..., Any]:
            def slow(*args: Any) -> Any:
                _epoch(self.epochs, began[0])
                return collect(*args)

            return slow

        replace_function("sweeper.engine.engine:Engine.launch", noted)
        replace_function("sweeper.engine.engine:Engine.collect", slowed)


def _epoch(epochs: Path, began: float) -> None:
    time.sleep(max(0.0, began + EPOCH_S - time.monotonic()))
    with epochs.open("ab") as file:
        file.write(b".")


@dataclass(frozen=True)
class Stranger:
    """A process that is on no other's machine: it is known by its lease alone."""

    def arm(self) -> None:
        """Give this process a place of its own."""
        here = f"nowhere:{time.monotonic_ns()}"
        replace_function("sweeper.machine:place", lambda place: lambda: here)


LEASE = Values({"sweeper.ledger.workers:LEASE_S": float(GRACE_S), "sweeper.ledger.workers:RETURN_S": -1e9,
                "sweeper.ledger.workers:LOSSES": 10**6})  # fmt: skip


@dataclass(frozen=True)
class OptunaJob:
    """One process of Optuna's.

    Attributes:
        folder: for its output.
        url: of the store.
        trials: to finish, all processes together.
        epochs: takes a byte for each that was trained.
    """

    folder: Path
    url: str
    trials: int
    epochs: Path

    def run(self, workload: Any, setup: Any) -> str:
        """Optimize until all trials are finished."""
        import optuna
        from optuna.study import MaxTrialsCallback
        from optuna.trial import TrialState

        def objective(trial: Any) -> float:
            keep = [trial.suggest_float(f"keep_prob_{layer}", 0.2, 1.0) for layer in (1, 2)]
            for epoch in range(EPOCHS):
                _epoch(self.epochs, time.monotonic())
                trial.report(sum(keep) / (epoch + 1), epoch)
            return sum(keep)

        study = optuna.load_study(
            study_name="chaos", storage=_storage(self.url), sampler=optuna.samplers.RandomSampler()
        )
        study.optimize(objective, callbacks=[MaxTrialsCallback(self.trials, states=(TrialState.COMPLETE,))])
        return "done"


def _storage(url: str) -> Any:
    import optuna

    return optuna.storages.RDBStorage(
        url,
        engine_kwargs={"pool_pre_ping": True},
        heartbeat_interval=BEAT_S,
        grace_period=GRACE_S,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
    )


@dataclass(frozen=True)
class Kills:
    """When whom: seconds since the start, and the place of the process."""

    moments: tuple[tuple[float, int], ...]

    @classmethod
    def drawn(cls, count: int, places: int, within_s: float, seed: int = 0) -> Kills:
        """The same for all sides."""
        chance = random.Random(seed)
        moments = [(chance.uniform(0.5, within_s), chance.randrange(places)) for _ in range(count)]
        return cls(tuple(sorted(moments)))


def raid(start: Callable[[], Dog], places: int, kills: Kills) -> tuple[float, int]:
    """Start a process at each place, kill as planned, and wait until all have ended; returns seconds and kills."""
    began, dogs, done = time.monotonic(), [start() for _ in range(places)], 0
    for moment, place in kills.moments:
        time.sleep(max(0.0, began + moment - time.monotonic()))
        if not dogs[place].has_ended:
            dogs[place].kill()
            done += 1
            dogs[place] = start()
    for dog in dogs:
        dog.wait(DEADLINE_S)
        if dog.code:
            print(f"  a process ended with {dog.code}: {dog.said.strip().splitlines()[-1:]}")
    return time.monotonic() - began, done


@dataclass(frozen=True)
class Told:
    """A line of the table."""

    name: str
    once: int
    lost: int
    stuck: int
    twice: int
    extra: int
    rows: int
    redone: float
    seconds: float
    kills: int

    HEAD = " " * 22 + "  once  lost stuck twice extra  rows  redone      s kills"

    @property
    def line(self) -> str:
        """Its columns."""
        counts = "".join(f" {n:5}" for n in (self.once, self.lost, self.stuck, self.twice, self.extra, self.rows))
        return f"{self.name:22}{counts} {self.redone:7.1%} {self.seconds:6.1f} {self.kills:5}"


def sweeper_side(kept: Kennel, server: Postgres, folder: Path, places: int, kills: Kills, *, saves: bool) -> Told:
    """Our workers."""
    folder.mkdir()
    epochs = folder / "epochs"
    with server.database(migrated=True) as url:
        ledger = Ledger(url)
        workload, setup = prepared(folder.parent / "small.yaml", 1)
        with ledger.write() as connection:
            sweeps.launch(connection, workload.plan(vars(setup.numerics)), fresh=False, differences=differences)
        place = str(folder / "checkpoints") if saves else None
        order = Order(folder, url, "small", (SlowEngine(epochs), LEASE, Stranger()), place, 0.0)
        seconds, killed = raid(lambda: kept.start(order), places, kills)
        with ledger.read() as connection:
            states = Counter(connection.scalars(select(TrialRow.state)))
            counted = Counter(connection.scalars(select(AttemptRow.trial_id).where(AttemptRow.state == "COMPLETE")))
        ledger.close()
    asked = workload.sweep.search.trials
    twice = sum(times > 1 for times in counted.values())
    once = sum(times == 1 for times in counted.values())
    lost = asked - states["COMPLETE"] - states["RUNNING"]
    extra, rows = max(0, states["COMPLETE"] - asked), states.total()
    name = "sweeper and saving" if saves else "sweeper"
    redone = _trained(epochs) / (asked * EPOCHS) - 1
    return Told(name, once, lost, states["RUNNING"], twice, extra, rows, redone, seconds, killed)


def optuna_side(kept: Kennel, server: Postgres, folder: Path, places: int, kills: Kills, trials: int) -> Told:
    """Optuna's."""
    import optuna

    folder.mkdir()
    job = OptunaJob(folder, "", trials, folder / "epochs")
    with server.database() as url:
        study = optuna.create_study(study_name="chaos", storage=_storage(url))
        job = replace(job, url=url)
        seconds, killed = raid(lambda: kept.start(job), places, kills)
        time.sleep(GRACE_S + BEAT_S)
        optuna.storages.fail_stale_trials(study)
        found = study.get_trials(deepcopy=False)
        study._storage.remove_session()
        study._storage._backend.engine.dispose()
    states = Counter(trial.state.name for trial in found)
    chains: dict[int, Counter[str]] = defaultdict(Counter)
    for trial in found:
        chains[trial.system_attrs.get("failed_trial", trial.number)][trial.state.name] += 1
    lost = sum(chain.total() == chain["FAIL"] for chain in chains.values())
    waiting = sum(not chain["COMPLETE"] and chain["WAITING"] > 0 for chain in chains.values())
    once = sum(chain["COMPLETE"] == 1 for chain in chains.values())
    twice = sum(chain["COMPLETE"] > 1 for chain in chains.values())
    if waiting:
        print(f"  {waiting} trials wait to be run again, and nobody does")
    redone = _trained(job.epochs) / (trials * EPOCHS) - 1
    extra = max(0, states["COMPLETE"] - trials)
    return Told("Optuna", once, lost + waiting, states["RUNNING"], twice, extra, len(found), redone, seconds, killed)


def _trained(epochs: Path) -> int:
    return epochs.stat().st_size


@contextmanager
def stage(trials: int) -> Iterator[tuple[Kennel, Postgres, Path]]:
    """A durable PostgreSQL server, and processes that are ready."""
    with tempfile.TemporaryDirectory() as name, postgres() as server:
        folder = Path(name)
        server.run(*(f"ALTER SYSTEM RESET {setting}" for setting in NOT_DURABLE), "SELECT pg_reload_conf()")
        sizes = (("trials: 5, replicates: 2", f"trials: {trials}, replicates: 1"), ("epochs: 4", f"epochs: {EPOCHS}"))
        with kennel(write_sweep(folder, *sizes, ONE_SPACE), 1) as kept:
            yield kept, server, folder


def main() -> None:
    """All sides, one after another."""
    import optuna

    warnings.simplefilter("ignore")  # that heartbeats are experimental
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    given = [int(word) for word in sys.argv[1:]]
    trials, count, places = (*given, *USUAL[len(given) :])
    ideal_s = trials * EPOCHS * EPOCH_S / places
    kills = Kills.drawn(count, places, ideal_s)
    print(
        f"{trials} trials of {EPOCHS * EPOCH_S:.1f} s on {places} processes ({ideal_s:.0f} s if nothing happens), "
        f"{count} kills; Optuna {optuna.__version__}; {datetime.now(UTC):%Y-%m-%d}"
    )
    with stage(trials) as (kept, server, folder):
        print(Told.HEAD, flush=True)
        for saves in (False, True):
            side = sweeper_side(kept, server, folder / f"sweeper-{saves}", places, kills, saves=saves)
            print(side.line, flush=True)
        print(optuna_side(kept, server, folder / "optuna", places, kills, trials).line)


if __name__ == "__main__":
    main()
