"""Commands that look: `status`, `trials`, `best`, `schema`; and `stop`, which only sets a flag.

`status` answers at once: what it has no use for is imported by the others, such as the price, which loads SciPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from sweeper.cli import now
from sweeper.cli.budget import spending, spending_words
from sweeper.cli.console import number, output, print_json, table
from sweeper.cli.estimates import expectations
from sweeper.cli.places import HOME, HomeOption, JsonOption, NameArgument, Places, StoreOption
from sweeper.cli.watch import watch
from sweeper.errors import UnknownSweepError
from sweeper.ledger import deliveries, reads, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.quantities import duration, energy
from sweeper.records import TrialState
from sweeper.space import describe

UNMEASURED = "not measured"
SpaceOption = Annotated[str | None, typer.Option("--space", help="Only this space.")]


def status(
    name: Annotated[str | None, typer.Argument(help="Name of a sweep; all of them by default.")] = None,
    home: HomeOption = HOME,
    store: StoreOption = None,
    watching: Annotated[
        bool, typer.Option("--watch", help="Look again every second, until Ctrl-C or until the named sweep is at rest.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """How far sweeps have come and who works on them, what they cost, and what MLflow has not been told yet."""
    ledger = Places.of(home, store).ledger()

    def look() -> list[dict[str, Any]]:
        with ledger.read() as connection:
            chosen = sweeps.chosen(connection, name)
        return [_status(ledger, sweep) for sweep in chosen]

    if watching:
        watch(look, _shown, json=json, ends=name is not None)
    elif json:
        told = look()
        print_json(told[0] if name else told)
    else:
        output.print(*_shown(look()), sep="\n", soft_wrap=True)


def trials(
    name: NameArgument,
    space: SpaceOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, best first.")] = 20,
    home: HomeOption = HOME,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """A sweep's trials, the best validation loss first; --json prints all of them in their order."""
    ledger = Places.of(home, store).ledger()
    with ledger.read() as connection:
        sweep = sweeps.find(connection, name)
        found = [t for t in reads.trials(connection, sweep.id) if space in (None, t.space)]
    if space is not None and not found:
        raise UnknownSweepError(f"sweep {name!r} has no trials in a space {space!r}. {_spaces(sweep)}")
    if json:
        from sweeper.cli import results

        print_json([results.trial_json(trial) for trial in found])
        return
    from sweeper.launched import launched_blueprint

    layers = launched_blueprint(sweep).words
    shown = table(
        None, "trial", "state", "validation loss", "test loss", "device-s", "layers (keep_prob)",
        right=("validation loss", "test loss", "device-s"),
    )  # fmt: skip
    found.sort(key=lambda t: (t.state is not TrialState.COMPLETE, t.validation_loss is None, t.validation_loss))
    for trial in found[:limit]:
        where = f"{trial.space}/{trial.replicate}/{trial.number}"
        losses = number(trial.validation_loss), number(trial.test_loss), number(trial.cost.device_s, 3)
        words = trial.error or describe(trial.setting, layers)
        shown.add_row(where, trial.state.value, *losses, words)
    output.print(shown)
    if len(found) > limit:
        output.print(f"... and {len(found) - limit} more; --limit shows more, --json all")


def best(
    name: NameArgument,
    space: SpaceOption = None,
    home: HomeOption = HOME,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """The best setting of each space, layer by layer."""
    ledger = Places.of(home, store).ledger()
    with ledger.read() as connection:
        sweep = sweeps.find(connection, name)
        found = reads.best_trials(connection, sweep.id)
    if space is not None:
        found = {key: trial for key, trial in found.items() if key == space}
    from sweeper.cli import results
    from sweeper.launched import launched_blueprint

    if not found:
        raise UnknownSweepError(f"sweep {name!r} has no finished trial{f' in a space {space!r}' if space else ''} yet.")
    if json:
        print_json({key: results.trial_json(trial) for key, trial in found.items()})
        return
    results.show_best(found, sweep.config["spaces"], launched_blueprint(sweep))


def stop(name: NameArgument, home: HomeOption = HOME, store: StoreOption = None) -> None:
    """Ask every worker to let go of a sweep; `sweeper resume` goes on with it."""
    ledger = Places.of(home, store).ledger()
    with ledger.write() as connection:
        sweeps.set_state(connection, sweeps.find(connection, name).id, sweeps.STOPPED)
    output.print(f"{name} is stopped: its workers let go within a tick. Go on with: sweeper resume {name}")


def schema() -> None:
    """The JSON Schema of sweep files, for editors that complete and check them."""
    from sweeper.config import json_schema

    print_json(json_schema())


def _spaces(sweep: Sweep) -> str:
    return f"Its spaces: {', '.join(sweep.config['spaces'])}."


def _status(ledger: Ledger, sweep: Sweep) -> dict[str, Any]:
    with ledger.read() as connection:
        spaces = reads.progress(connection, sweep.id)
        delivered, waiting, parked = deliveries.counts(connection, sweep.id)
        cost, times = reads.total_cost(connection, sweep.id), reads.worker_times(connection, sweep.id)
        meter, notes = reads.meter(connection, sweep.id), reads.energy_notes(connection, sweep.id)
        elapsed_s = reads.elapsed_s(connection, sweep.id)
        this_moment, budget = now.now(connection, sweep.id, spaces), spending(connection, sweep)
    done, planned = sum(space.finished for space in spaces), sum(space.planned for space in spaces)
    return {
        "sweep": sweep.name,
        "mode": sweep.mode,
        "state": "done" if done >= planned else sweep.state,
        "trials": {"finished": done, "planned": planned, "failed": sum(space.failed for space in spaces)}
        | {"pruned": sum(space.pruned for space in spaces)},
        "spaces": [asdict(space) for space in spaces],
        "budget": budget,
        "cost": {**asdict(cost), "device_s": cost.device_s},
        "worker_s": times,
        "occupancy": meter.occupancy,
        "energy": {
            "joules": cost.joules,
            "joules_per_trial": cost.joules / done if cost.joules is not None and done else None,
            "joules_with_idle_slots": meter.joules,
            "notes": notes,
        },
        "estimate": sweep.estimate,
        "actual": {
            "seconds": elapsed_s,
            "device_s": cost.device_s,
            "joules": meter.joules,
            "trials_per_s": done / elapsed_s if elapsed_s else None,
        },
        "mlflow": {"delivered": delivered, "waiting": waiting, "parked": parked},
        "now": this_moment,
    }


def _shown(told: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """How sweeps stand, and who works on them."""
    lines = [Text(line) for one in told for line in _lines(one)]
    workers = now.workers_table(told)
    return [*lines, *([workers] if workers else [])]


def _lines(one: Mapping[str, Any]) -> Iterator[str]:
    counted, told, times = one["trials"], one["mlflow"], one["worker_s"]
    yield (
        f"{one['sweep']}: {one['state']}, {counted['finished']}/{counted['planned']} trials"
        + "".join(f" ({counted[how]} {how})" for how in ("failed", "pruned") if counted[how])
        + f", MLflow has {told['delivered']} runs"
        + (f", {told['waiting']} on their way" if told["waiting"] else "")
        + (f", {told['parked']} refused" if told["parked"] else "")
    )
    if one["budget"] is not None:
        yield f"  {spending_words(one['budget'])}"
    if times:
        held = sum(times.values())
        parts = ", ".join(f"{kind} {value / held:.1%}" for kind, value in sorted(times.items(), key=lambda t: -t[1]))
        yield f"  workers held their devices for {duration(held)}: {parts}"
    if one["occupancy"] is not None:
        yield f"  occupancy: {one['occupancy']:.1%} of all slot-steps had a fit, drain included"
        yield f"  energy: {_energy(one['energy'])}"
    yield from (f"  {line}" for line in (*expectations(one), *now.words(one)))
    for space in one["spaces"]:
        best_loss = number(space["best_validation_loss"])
        done = space["complete"] + space["failed"] + space["pruned"]
        yield f"  {space['space']}: {done}/{space['planned']} trials, best validation loss {best_loss}"


def _energy(told: dict[str, Any]) -> str:
    """Joules where they were measured, and what measured them; else why they were not."""
    joules, each, all_slots = told["joules"], told["joules_per_trial"], told["joules_with_idle_slots"]
    if joules is None:
        reasons = [note for note in told["notes"] if note.startswith(UNMEASURED)]
        return "; ".join(reasons) or UNMEASURED
    words = energy(joules)
    words += f" ({energy(each)} per trial)" if each is not None else ""
    words += f", {energy(all_slots)} with idle slots" if all_slots is not None else ""
    return "; ".join([words, *told["notes"]])
