"""Pruners in a sweep file: what may be said, what is recorded, and when nothing could ever be pruned."""

from __future__ import annotations

from typing import Any

import pytest

from config.sweeps import changed, sweep_with
from sweeper.config import Sweep, parse_sweep
from sweeper.errors import SweepFileError
from sweeper.search.rungs import Asha, Median, pruner


def with_pruner(text: str, *, epochs: int = 40) -> Sweep:
    return sweep_with(("sampler: random", f"pruner: {text}"), ("epochs: 40", f"epochs: {epochs}"))


def warnings(text: str, *, epochs: int = 40, trials: int = 32) -> tuple[str, ...]:
    changes = ("sampler: random", f"pruner: {text}"), ("epochs: 40", f"epochs: {epochs}")
    return parse_sweep(changed(*changes, ("trials: 32", f"trials: {trials}")), "x.yaml", ".").warnings


@pytest.mark.parametrize("text", ["none", "{kind: none}"])
def test_no_pruner_is_recorded_as_it_was_before_there_was_a_choice(text: str):
    """Else sweeps that were launched then could not be resumed."""
    assert with_pruner(text).model_dump(mode="json")["search"]["pruner"] == "none"
    assert sweep_with().model_dump(mode="json")["search"]["pruner"] == "none"
    assert with_pruner(text) == sweep_with()


@pytest.mark.parametrize(
    ("text", "recorded"),
    [
        (
            "asha",
            {
                "kind": "asha",
                "min_resource": 1,
                "reduction_factor": 4,
                "min_early_stopping_rate": 0,
                "bootstrap_count": 0,
            },
        ),
        (
            "{kind: median, n_warmup_steps: 3}",
            {"kind": "median", "n_startup_trials": 5, "n_warmup_steps": 3, "interval_steps": 1, "n_min_trials": 1},
        ),
        ("hyperband", {"kind": "hyperband", "min_resource": 1, "reduction_factor": 3, "bootstrap_count": 0}),
    ],
)
def test_a_pruner_is_recorded_with_every_argument(text: str, recorded: dict[str, Any]):
    assert with_pruner(text).model_dump(mode="json")["search"]["pruner"] == recorded


def test_defaults_are_those_of_the_rules():
    arguments = with_pruner("asha").search.pruner.model_dump()
    assert Asha(**{name: value for name, value in arguments.items() if name != "kind"}) == Asha()
    arguments = with_pruner("median").search.pruner.model_dump()
    assert Median(**{name: value for name, value in arguments.items() if name != "kind"}) == Median()


def test_a_sweep_that_prunes_measures_no_prices():
    assert sweep_with().mode == "measurement"
    assert {with_pruner(text).mode for text in ("median", "asha", "hyperband")} == {"product"}


@pytest.mark.parametrize(
    "text",
    [
        "{kind: asha, reduction_factor: 1}",
        "{kind: asha, min_resource: 0}",
        "{kind: asha, min_resource: 1.5}",
        "{kind: median, interval_steps: 0}",
        "{kind: hyperband, bootstrap_count: -1}",
        "{kind: median, percentile: 25}",
        "[asha]",
        "3",
    ],
)
def test_what_no_pruner_can_do_is_refused(text: str):
    with pytest.raises(SweepFileError, match=r"x\.yaml:10: .*search\.pruner"):
        with_pruner(text)


@pytest.mark.parametrize("epochs", [1, 2, 3, 9, 27, 40])
@pytest.mark.parametrize(
    "text",
    [
        "asha",
        "{kind: asha, min_resource: 3, reduction_factor: 3, min_early_stopping_rate: 1}",
        "median",
        "{kind: median, n_warmup_steps: 9, interval_steps: 4}",
        "{kind: median, interval_steps: 4}",
        "hyperband",
        "{kind: hyperband, min_resource: 9}",
    ],
)
def test_the_first_rung_is_where_the_rules_first_judge(text: str, epochs: int):
    section = with_pruner(text, epochs=epochs).search.pruner
    arguments = section.model_dump()
    rules = pruner(arguments.pop("kind"), arguments, epochs=epochs, seed=1)
    judged = [epoch for epoch in range(1, epochs + 1) if any(rules.is_rung(number, epoch) for number in range(64))]
    assert section.first_rung(epochs) == min(judged, default=None)
    assert any("so that none is pruned" in warning for warning in warnings(text, epochs=epochs)) == (not judged)


def test_a_pruner_that_can_never_prune_is_warned_of():
    assert warnings("{kind: asha, min_resource: 40}") == (
        "x.yaml:10: search.pruner: judges no trial before the last of its 40 epochs, so that none is pruned. "
        "Let it begin sooner.",
    )
    assert warnings("median", trials=5) == (
        "x.yaml:10: search.pruner: waits for 5 complete trials, and a study has 5, so that none is pruned. "
        "Lower n_startup_trials.",
    )
    assert warnings("median", trials=6) == warnings("asha") == warnings("none") == ()
