"""Facts to report, of problem A."""

from datetime import UTC, datetime

import numpy as np

from price.problems import A_SHAPES, problem_a
from sweeper.price import Mode, price_sweep, summarise_spaces
from sweeper.report import Facts, Machine, Sheet

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def facts(replicates=10, trials=32, *, mode=Mode.MEASUREMENT, studies=None, shapes=A_SHAPES, **changes):
    """A report's facts; `changes` replace what no trial decides."""
    found = problem_a(replicates, trials, np.random.default_rng(1)) if studies is None else studies
    count = sum(len(rows) for space in found.values() for rows in space.values())
    machine = Machine("a device", "a host", 2, NOON, None, {"threads": "1"})
    rest = {
        "name": "digits",
        "workload": "4-2 on nothing",
        "loss": "squared error",
        "finished": count,
        "planned": count,
        "importance": Sheet("importance in per_layer", [{"hyperparameter": "keep_prob_1", "layers": "1"}]),
        "accounts": [Sheet("by kind", [{"kind": "training", "seconds": "3.00", "share": "75.0%"}])],
        "balance": "balanced: 4.00 s are accounted for",
        "amounts": [("energy", "not measured")],
        "machines": [machine],
        "numerics": {"compiled": "False"},
        "data_sha256": "ab" * 32,
        "file_path": "digits.yaml",
        "file_text": "name: digits",
        "made_at": NOON,
        "versions": {"sweeper": "0.1"},
    }
    prices = price_sweep(found, shapes, mode=mode)
    spaces = summarise_spaces(found, shapes, mode=mode)
    return Facts(mode=mode, studies=found, shapes=shapes, prices=prices, spaces=spaces, **rest | changes)
