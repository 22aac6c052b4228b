"""What a sweep is going to do, and what came of it: the same words in `run`, `best` and `price`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from sweeper.blueprint import Blueprint
from sweeper.cli.budget import limit_words
from sweeper.cli.console import errors, number, output, table
from sweeper.ledger import reads
from sweeper.ledger.rows import Sweep, Trial
from sweeper.ledger.store import Ledger
from sweeper.price import Mode, PriceTable, difference_text, price_sweep, price_text, sentence
from sweeper.records import Task
from sweeper.space import Space, describe

if TYPE_CHECKING:
    from sweeper.workload import Workload  # loads PyTorch, which only those who have one need


def show_plan(workload: Workload) -> None:
    """What will be searched, before anything is."""
    sweep, folds = workload.sweep, workload.folds[0]
    for warning in workload.file.warnings:
        errors.print(f"warning: {warning}")
    for note in workload.notes:
        errors.print(f"note: {note}")
    errors.print(
        f"{sweep.name}: {workload.blueprint.title} on {sweep.data.source}, {len(folds[0].y_train)} training, "
        f"{len(folds[0].y_validation)} validation, {len(folds[0].y_test)} test rows"
        + (f", {len(folds)} folds" if len(folds) > 1 else "")
    )
    errors.print(
        f"{len(workload.spaces)} spaces x {sweep.search.replicates} replicates x {sweep.search.trials} trials = "
        f"{workload.trials} trials ({sweep.mode} mode, sampler {workload.sampler.kind})"
    )
    limits = limit_words(dict(sweep.search.budget))
    if limits:
        errors.print(limits)
    for name, space in workload.spaces.items():
        errors.print(f"  {name}: {_searched(space)}")


def _searched(space: Space) -> str:
    names = [parameter.name for parameter in space.parameters]
    if not names:
        return "nothing to search, so only luck differs"
    return f"{len(names)} hyperparameter{'s' if len(names) > 1 else ''}: {', '.join(names)}"


@dataclass(frozen=True)
class Summary:
    """What came of a sweep: the best trial per space, and the price table."""

    sweep: Sweep
    workload: Workload
    best: dict[str, Trial]
    prices: PriceTable

    @classmethod
    def of(cls, ledger: Ledger, sweep: Sweep, workload: Workload) -> Summary:
        """Read it from the ledger."""
        with ledger.read() as connection:
            best = reads.best_trials(connection, sweep.id)
            priced = reads.priced(connection, sweep.id)
        return cls(sweep, workload, best, price_sweep(priced, workload.shapes(), mode=Mode(sweep.mode)))

    def show(self) -> None:
        """The two tables."""
        show_best(self.best, self.workload.spaces, self.workload.blueprint)
        output.print()
        show_prices(self.prices)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        best = {space: trial_json(trial) for space, trial in self.best.items()}
        return {"sweep": self.sweep.name, "mode": self.sweep.mode, "best": best, "prices": prices_json(self.prices)}


def show_best(best: dict[str, Trial], spaces: Iterable[str], blueprint: Blueprint) -> None:
    """The best setting of each space, layer by layer; the spaces in the file's order."""
    metric = "test RMSE" if blueprint.task is Task.REGRESSION else "test accuracy"
    numbers = ("validation loss", "test loss", metric)
    shown = table("best setting per space, by validation loss", "space", *numbers, "layers (keep_prob)", right=numbers)
    for space in spaces:
        if space in best:
            trial = best[space]
            losses = number(trial.validation_loss), number(trial.test_loss), number(trial.test_metric, 3)
            shown.add_row(space, *losses, describe(trial.setting, blueprint.words))
    output.print(shown)


def show_prices(prices: PriceTable) -> None:
    """What each larger space costs and buys against the smaller one, in short; `price` shows all of it."""
    if prices.mode is Mode.PRODUCT:
        output.print(
            "prices are measured by random search without pruning (sampler: random); this sweep ran in product mode, "
            "where trials depend on each other. What follows compares single traces, one per replicate."
        )
    if prices.prices:
        first = prices.prices[0]
        title = (
            f"what extra hyperparameters cost and buy ({prices.mode} mode; test loss; {len(first.replicates)} "
            "replicates, 95 % intervals)"
        )
        shown = table(title, "edge", "extra", "buys", "price", right=("extra",))
        for edge in prices.prices:
            name = f"{edge.edge.smaller} -> {edge.edge.larger}"
            buys = f"{difference_text(edge.buys)} at {edge.budget} trials"
            cost = f"{price_text(edge.headline)} x the trials of n0 = {edge.headline.n0}"
            shown.add_row(*map(Text, (name, str(edge.extra), buys, cost)))  # no markup: "[no interval]" is text
        output.print(shown)
        output.print()
    show_sentences(prices)


def show_sentences(prices: PriceTable) -> None:
    """What each edge's figures say, and why an edge has none."""
    for edge in prices.prices:
        output.print(sentence(edge), soft_wrap=True, markup=False)
    for missing in prices.unmeasured:
        told = f"{missing.edge.smaller} -> {missing.edge.larger}: not measured: {missing.reason}"
        output.print(told, soft_wrap=True, markup=False)


def prices_json(prices: PriceTable) -> list[dict[str, Any]]:
    """The price table for programs."""
    return [{**asdict(edge), "verdict": edge.verdict.value, "sentence": sentence(edge)} for edge in prices.prices] + [
        {"edge": missing.edge, "unmeasured": missing.reason} for missing in prices.unmeasured
    ]


def trial_json(trial: Trial) -> dict[str, Any]:
    """A trial for programs."""
    return {
        **asdict(trial),
        "state": trial.state.value,
        "cost": {**asdict(trial.cost), "device_s": trial.cost.device_s},
    }
