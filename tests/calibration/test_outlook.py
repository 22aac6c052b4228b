"""What a sweep will take, said before it begins: bounds that hold, and a pilot whose interval is honest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from scipy import stats

from small import FOLDS, TPE, TRIALS, Change, outcome, run_here, small_workload
from sweeper.calibration import Pace, Setup, Wish, estimate, outlook, pilot, rehearsed_pace, set_up
from sweeper.calibration.outlook import epoch_bounds, mean_span, pilot_fits, student_t

PATIENT: Change = ("epochs: 4", "epochs: 12, patience: 2")
PRUNED: Change = (
    "trials: 5, replicates: 2",
    "trials: 5, replicates: 2, pruner: {kind: asha, min_resource: 2, reduction_factor: 2}",
)
STEPS = 3  # of an epoch: 24 rows, 8 at a time


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def ready(folder: Path, *changes: Change, slots: int = 4, processes: int = 1) -> Setup:
    wish = Wish("cpu", slots=slots, threads=1, processes=processes, compiling=False)
    return set_up(small_workload(folder, *changes), wish)


@pytest.fixture
def no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own work takes no time."""
    monkeypatch.setattr(outlook, "_host_s", lambda setup: 0.0)


# how long fits train --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "bounds"),
    [
        pytest.param((), (4, 4), id="all epochs without early stopping"),
        pytest.param((PATIENT,), (3, 12), id="one that is best, and as many as it has patience for"),
        pytest.param((("epochs: 4", "epochs: 4, patience: 9"),), (4, 4), id="patience for more than there are"),
        pytest.param((PRUNED,), (2, 4), id="a pruner ends fits at the first rung"),
        pytest.param((PRUNED, ("epochs: 4", "epochs: 12, patience: 1")), (2, 12), id="whichever comes first"),
    ],
)
def test_a_fit_trains_as_long_as_the_sweep_file_allows(
    tmp_path: Path, changes: tuple[Change, ...], bounds: tuple[float, float]
):
    assert epoch_bounds(small_workload(tmp_path, *changes)) == bounds


@pytest.mark.parametrize("changes", [(PATIENT,), (PRUNED,)], ids=["patient", "pruned"])
def test_the_bounds_hold(tmp_path: Path, changes: tuple[Change, ...]):
    workload = small_workload(tmp_path, *changes)
    least, most = epoch_bounds(workload)
    trained = [
        fit["epochs"] for trial in outcome(run_here(workload, tmp_path).ledger).values() for fit in trial["fits"]
    ]
    assert least <= min(trained) < max(trained) <= most


# from the rehearsal ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_host")
def test_fits_of_one_length_take_their_rounds_of_ticks(tmp_path: Path):
    setup = ready(tmp_path)
    expected = estimate(setup, rehearsed_pace(setup), TRIALS)
    assert (expected.trials, expected.fits, expected.epochs) == (20, 20, (4, 4))
    assert expected.seconds == (pytest.approx(20 / 4 * 4 * setup.tick_s),) * 2
    assert expected.device_s == expected.seconds
    assert expected.trials_per_s == (pytest.approx(20 / expected.seconds[0]),) * 2
    assert expected.joules is None
    assert expected.energy.startswith("not measured: ")


@pytest.mark.usefixtures("no_host")
def test_what_early_stopping_leaves_open_is_the_interval(tmp_path: Path):
    setup = ready(tmp_path, PATIENT)
    expected = estimate(setup, rehearsed_pace(setup), TRIALS)
    tick_s = pytest.approx(setup.tick_s)
    assert expected.epochs == (3, 12)
    assert expected.seconds[0] / (5 * 3) == tick_s
    assert expected.seconds[1] / (5 * 12) == tick_s
    assert expected.device_s == (pytest.approx(5 * 3 * setup.tick_s), pytest.approx(5 * 12 * setup.tick_s))


@pytest.mark.usefixtures("no_host")
def test_the_last_fits_may_train_alone(tmp_path: Path):
    setup = ready(tmp_path, PATIENT, slots=3)
    expected = estimate(setup, Pace("any", (5.0, 6.0), (1.0, 1.0), None), TRIALS)
    assert expected.seconds == (pytest.approx(20 * 5.0), pytest.approx(20 * 6.0 + 3 * 12))
    few = estimate(setup, Pace("any", (5.0, 11.0), (1.0, 1.0), None), 3)
    assert few.seconds == (pytest.approx(3 * 5.0), pytest.approx(3 * 12))  # one round, of the longest at most


@pytest.mark.usefixtures("no_host")
def test_folds_are_fits_and_processes_share_the_clock(tmp_path: Path):
    alone, pair = (ready(tmp_path, FOLDS, slots=6, processes=count) for count in (1, 2))
    pair.tick_s = alone.tick_s
    one, two = (estimate(setup, rehearsed_pace(setup), TRIALS) for setup in (alone, pair))
    assert (one.fits, two.fits) == (60, 60)
    assert two.seconds[0] == pytest.approx(one.seconds[0] / 2)
    assert two.device_s == one.device_s


@pytest.mark.usefixtures("no_host")
def test_slots_that_a_sweep_cannot_fill_make_it_no_faster(tmp_path: Path):
    few, many = (ready(tmp_path, TPE, slots=slots) for slots in (4, 16))
    many.tick_s = 4 * few.tick_s
    expected = [estimate(setup, rehearsed_pace(setup), TRIALS).seconds[0] for setup in (few, many)]
    assert expected[1] == pytest.approx(4 * expected[0])


def test_the_hosts_work_counts_for_every_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    setup = ready(tmp_path)
    pace = rehearsed_pace(setup)
    with monkeypatch.context() as patched:
        patched.setattr(outlook, "_host_s", lambda setup: 0.0)
        device = estimate(setup, pace, TRIALS)
    more = estimate(setup, pace, TRIALS).seconds[0] - device.seconds[0]
    assert TRIALS * outlook.STORAGE_S < more < TRIALS * 1.0


class Burning:
    """A meter on a clock of its own: so many watts."""

    def __init__(self, watts: float) -> None:
        self.watts, self.now = watts, 0.0

    def read(self) -> float:
        return self.watts * self.now

    def perf_counter(self) -> float:
        self.now += 0.1
        return self.now


@pytest.mark.usefixtures("no_host")
def test_energy_is_power_times_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    setup, meter = ready(tmp_path, PATIENT), Burning(250.0)
    monkeypatch.setattr(outlook, "find_meter", lambda device: meter)
    pace = Pace("any", (3, 12), (0.5, 0.5), 250.0)
    expected = estimate(setup, pace, TRIALS)
    assert expected.joules == (250.0 * expected.seconds[0], 250.0 * expected.seconds[1])
    monkeypatch.setattr(outlook.time, "perf_counter", meter.perf_counter)
    assert outlook._watts(setup) == pytest.approx(250.0, rel=0.3)


# from a pilot ---------------------------------------------------------------------------------------------------------


def test_a_pilot_trains_settings_of_every_space_and_replicate(tmp_path: Path):
    workload = small_workload(tmp_path, FOLDS)
    fits = pilot_fits(workload, 12)
    assert len({fit.key for fit in fits}) == len({fit.seed for fit in fits}) == 12
    assert {fit.fold for fit in fits} == set(range(6))
    free = [fit.setting.lambda_ != (0.0,) * 3 for fit in fits]
    assert sum(free) == 6  # `both` searches lambda, `shared` has none


def test_a_pilot_leaves_the_engine_empty_and_no_result_behind(tmp_path: Path):
    setup = ready(tmp_path, PATIENT)
    assert pilot(setup) is not None
    assert setup.engine.free == setup.engine.slots
    again = pilot(setup)
    assert again is not None
    assert again.epochs == pilot(setup).epochs  # type: ignore[union-attr]  # the same settings train as long


def test_a_pilots_interval_holds_the_mean_of_the_whole_sweep(tmp_path: Path):
    long: Change = ("epochs: 4", "epochs: 60, patience: 3")
    setup = ready(tmp_path, long, slots=24)
    pace = pilot(setup)
    assert pace is not None
    assert pace.basis == "a pilot of 24 fits"
    ran = run_here(small_workload(tmp_path, long), tmp_path / "home")
    trained = [fit["epochs"] for trial in outcome(ran.ledger).values() for fit in trial["fits"]]
    least, most = pace.epochs
    assert 4 <= least < mean(trained) < most <= 60
    assert most - least < 30
    assert 0 < pace.epoch_s[0] <= pace.epoch_s[1]


def test_a_pilot_that_takes_too_long_is_cut_off_and_allows_for_it(tmp_path: Path):
    setup = ready(tmp_path, ("epochs: 4", "epochs: 1000000"))
    pace = pilot(setup, within_s=0.3)
    assert pace is not None
    assert pace.basis == "a pilot of 4 fits, 4 of them cut off"
    assert 1 <= pace.epochs[0] < 1000
    assert pace.epochs[1] == 1_000_000
    assert setup.engine.free == 4


def test_no_pilot_where_a_single_tick_takes_too_long(tmp_path: Path):
    setup = ready(tmp_path)
    setup.tick_s = 60.0
    assert pilot(setup) is None


def test_a_pruners_pilot_is_bounded_by_the_first_rung(tmp_path: Path):
    pace = pilot(ready(tmp_path, PRUNED))
    assert pace is not None
    assert pace.epochs == (2, 4)


# intervals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 255])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_students_quantile_is_scipys(freedom: int, confidence: float):
    exact = stats.t.ppf((1 + confidence) / 2, freedom)
    assert student_t(freedom, confidence) == pytest.approx(exact, rel=0.01)


def test_the_interval_of_a_mean_is_the_textbooks():
    """Student's sleep data (1908), the differences: 95 % interval 0.70 to 2.46."""
    differences = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert mean_span(differences) == (pytest.approx(0.70, abs=0.005), pytest.approx(2.46, abs=0.005))
    half = stats.t.ppf(0.975, 9) * stdev(differences) / math.sqrt(10)
    assert mean_span(differences)[1] - 1.58 == pytest.approx(half, rel=1e-3)


def test_the_interval_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    drawn = random.exponential(size=(400, 30))
    covers = [least < 1.0 < most for least, most in map(mean_span, drawn.tolist())]
    assert 0.90 <= mean(covers) <= 0.98


def test_one_value_has_no_interval():
    assert mean_span([3.0]) == (0.0, math.inf)
