"""How a sweep is computed: as few seconds of measuring as possible decide, and a user's word overrides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from small import FOLDS, TPE, Change, small_workload
from sweeper.calibration import Setup, Wish, choice, set_up
from sweeper.calibration.choice import useful_slots
from sweeper.engine import Engine
from sweeper.errors import EngineError, OutOfMemoryError

HERE = {"device": "cpu", "threads": 1, "processes": 1, "compiling": False}
MANY: Change = ("trials: 5, replicates: 2", "trials: 500, replicates: 1")
LONG: Change = ("epochs: 4", "epochs: 4000")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def chosen(folder: Path, *changes: Change, pinned: dict[str, Any] | None = None, **how: Any) -> Setup:
    return set_up(small_workload(folder, *changes), Wish(**HERE | how), pinned)


@dataclass
class Machine:
    """A machine of so many cores without a compiler, on which a tick takes what it is said to.

    Attributes:
        threads: that PyTorch was told to use. It is not: more threads than there really are cores would take minutes.
    """

    monkeypatch: pytest.MonkeyPatch
    threads: int = 1

    def __call__(self, cores: int, tick_s: Callable[[Engine], float]) -> None:
        facts = choice.device_facts
        self.monkeypatch.setattr(choice, "cpu_cores", lambda: cores)
        self.monkeypatch.setattr(choice, "can_compile", lambda device: False)
        self.monkeypatch.setattr(choice, "use_threads", partial(setattr, self, "threads"))
        self.monkeypatch.setattr(choice, "device_facts", lambda device: replace(facts(device), threads=self.threads))
        self.monkeypatch.setattr(Engine, "rehearse", lambda engine, within_s: tick_s(engine))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


# slots ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "slots", "expected"),
    [
        pytest.param((), None, 4, id="a slot per study"),
        pytest.param((FOLDS,), None, 12, id="a slot per study and fold"),
        pytest.param((("replicates: 2", "replicates: 40"),), None, 64, id="64 at most"),
        pytest.param((MANY,), None, 50, id="of 1000 random trials, a twentieth"),
        pytest.param((MANY, TPE), None, 2, id="of sequential trials, one per study"),
        pytest.param((), 7, 7, id="as asked for"),
        pytest.param((FOLDS,), 1, 3, id="room for a whole trial at least"),
    ],
)
def test_slots_follow_from_what_the_sweep_can_use(
    tmp_path: Path, changes: tuple[Change, ...], slots: int | None, expected: int
):
    assert chosen(tmp_path, *changes, slots=slots).engine.slots == expected


def test_processes_share_the_slots_among_them_in_whole_trials(tmp_path: Path):
    workload = small_workload(tmp_path, FOLDS)
    assert [useful_slots(workload, "cpu", processes) for processes in (1, 2, 3, 100)] == [12, 6, 6, 3]


def test_a_concurrent_study_can_use_more_slots(tmp_path: Path):
    assert chosen(tmp_path, TPE, ("replicates: 2", "replicates: 2, concurrency: 3")).engine.slots == 12


# memory ---------------------------------------------------------------------------------------------------------------


def memory_for(setup: Setup, slots: int, *, share: float = 1.0, width: int = min(choice.EAGER_WIDTHS)) -> int:
    """So many free bytes that a share of them is enough for these slots, and not for one more."""
    return int(setup.footprint.total(slots, width) / share) + 8


def test_free_memory_limits_the_slots_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    free = memory_for(chosen(tmp_path), 3, share=choice.MEMORY_SHARE, width=64)
    monkeypatch.setattr(choice, "free_bytes", lambda: free)
    setup = chosen(tmp_path)
    assert setup.engine.slots == 3
    assert "has room for 3 fits at once" in setup.notes[0]


def test_more_slots_than_the_memory_holds_are_refused_with_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    free = memory_for(chosen(tmp_path), 5)
    monkeypatch.setattr(choice, "free_bytes", lambda: free)
    assert chosen(tmp_path, slots=5).engine.slots == 5
    with pytest.raises(OutOfMemoryError, match=r"6 fits at once would take about .*Pass --slots 5 or fewer"):
        chosen(tmp_path, slots=6)


def test_a_trial_that_needs_more_than_all_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    free = memory_for(chosen(tmp_path, FOLDS), 2)
    monkeypatch.setattr(choice, "free_bytes", lambda: free)
    with pytest.raises(OutOfMemoryError, match=r"3 fits at once would take .*Take a smaller batch_size or network"):
        chosen(tmp_path, FOLDS)


def test_each_process_has_its_share_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    free = memory_for(chosen(tmp_path), 4)
    monkeypatch.setattr(choice, "free_bytes", lambda: 2 * free)
    assert chosen(tmp_path, slots=4, processes=2).engine.slots == 4
    with pytest.raises(OutOfMemoryError, match="free for each process"):
        chosen(tmp_path, slots=4, processes=3)


def failing_above(slots: int) -> Callable[..., float]:
    def rehearse(engine: Engine, within_s: float) -> float:
        if engine.slots > slots:
            raise OutOfMemoryError(f"{engine.slots} fits at once don't fit.")
        return 0.01

    return rehearse


def test_an_engine_that_runs_out_of_memory_is_built_with_half_the_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Engine, "rehearse", failing_above(8))
    assert chosen(tmp_path, slots=21).engine.slots == 5


def test_a_single_trial_that_runs_out_of_memory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Engine, "rehearse", failing_above(0))
    with pytest.raises(
        OutOfMemoryError, match=r"not even a single fit fits into the memory of cpu\. 1 fits at once don't"
    ):
        chosen(tmp_path, slots=2)
    with pytest.raises(
        OutOfMemoryError, match=r"the 3 folds of a single trial don't fit .*smaller batch_size or network"
    ):
        chosen(tmp_path, FOLDS, slots=5)


# eager or compiled ----------------------------------------------------------------------------------------------------


def test_a_short_sweep_is_not_worth_compiling(tmp_path: Path):
    setup = chosen(tmp_path, compiling=None)
    assert not setup.numerics.compiled
    assert setup.tick_s > 0
    assert setup.eager_step_s == pytest.approx(setup.step_s)


@pytest.mark.parametrize("wish", [None, False, True])
def test_a_resumed_sweep_computes_as_it_was_launched(tmp_path: Path, wish: bool | None):
    pinned = {"compiled": False, "torch": torch.__version__, "device": "cpu"}
    setup = chosen(tmp_path, compiling=wish, pinned=pinned)
    assert not setup.numerics.compiled
    assert setup.notes == []


def test_a_sweep_that_goes_on_in_another_way_says_so(tmp_path: Path):
    setup = chosen(tmp_path, pinned={"compiled": False, "torch": "1.0", "device": "cuda", "precision": "float32"})
    (note,) = setup.notes
    assert note.startswith("this sweep was launched with torch 1.0, device cuda; results differ in their last bits")


def test_without_a_compiler_training_is_eager_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choice, "can_compile", lambda device: False)
    setup = chosen(tmp_path, compiling=True)
    assert not setup.numerics.compiled
    assert "Install g++" in setup.notes[0]
    pinned = chosen(tmp_path, pinned={"compiled": True})
    assert not pinned.numerics.compiled
    assert "differ in their last bits" in pinned.notes[1]


def test_a_short_sweep_does_not_miss_the_compiler(tmp_path: Path, machine: Machine):
    machine(1, lambda engine: 0.01)
    assert chosen(tmp_path, compiling=None).notes == []
    assert "Install g++" in chosen(tmp_path, LONG, compiling=None).notes[0]


def test_what_cannot_be_compiled_runs_eager_unless_the_user_insists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def rehearse(engine: Engine, within_s: float) -> float:
        if engine._compiled:
            raise EngineError("no such kernel.")
        return 10.0

    monkeypatch.setattr(Engine, "rehearse", rehearse)
    setup = chosen(tmp_path, LONG, compiling=None)
    assert not setup.numerics.compiled
    assert setup.notes == ["training runs eager, several times slower than compiled: no such kernel."]
    with pytest.raises(EngineError, match="no such kernel"):
        chosen(tmp_path, compiling=True)


def test_a_device_that_is_not_there_is_an_error_for_the_user(tmp_path: Path):
    with pytest.raises(EngineError, match="cuda:7"):
        chosen(tmp_path, device="cuda:7")


# threads and processes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faster", "threads", "spared", "expected"),
    [
        pytest.param(2.0, None, 0, 4, id="threads that make it faster are used"),
        pytest.param(1.05, None, 0, 1, id="threads that hardly do are not"),
        pytest.param(0.5, None, 0, 1, id="nor those that make it slower"),
        pytest.param(2.0, None, 1, 3, id="a core is spared"),
        pytest.param(0.5, 2, 0, 2, id="as asked for"),
    ],
)
def test_threads_are_those_that_pay(
    tmp_path: Path, machine: Machine, faster: float, threads: int | None, spared: int, expected: int
):
    machine(4, lambda engine: 0.01 if machine.threads == 1 else 0.01 / faster)
    setup = chosen(tmp_path, threads=threads, processes=None, spared=spared)
    assert (setup.device.threads, setup.processes) == (expected, 1)
    assert machine.threads == expected


@pytest.mark.parametrize(
    ("changes", "wished", "expected"),
    [
        pytest.param((LONG,), {}, (2, 1, 2), id="a long sweep: as many as two trials each leave"),
        pytest.param((LONG, MANY), {}, (4, 1, 13), id="one process per core"),
        pytest.param((LONG, MANY), {"spared": 1}, (3, 1, 17), id="but MLflow's"),
        pytest.param((LONG, MANY), {"threads": 2}, (2, 2, 25), id="with the threads asked for"),
        pytest.param((), {}, (1, 1, 4), id="a short sweep stays in one"),
        pytest.param((), {"processes": 3, "slots": 5}, (3, 1, 5), id="as asked for"),
        pytest.param((LONG, MANY), {"processes": 1}, (1, 1, 50), id="one if asked for"),
    ],
)
def test_a_long_sweep_has_a_process_per_core(
    tmp_path: Path,
    machine: Machine,
    changes: tuple[Change, ...],
    wished: dict[str, Any],
    expected: tuple[int, int, int],
):
    machine(4, lambda engine: 0.01)
    sequential = changes if MANY in changes else (*changes, TPE)
    setup = chosen(tmp_path, *sequential, **{"threads": None, "processes": None} | wished)
    assert (setup.processes, setup.device.threads, setup.engine.slots) == expected


def test_long_eager_work_is_done_in_the_groups_that_are_quickest(tmp_path: Path, machine: Machine):
    widths: list[int] = []

    def tick_s(engine: Engine) -> float:
        widths.append(engine.width)
        return {8: 3.0, 2: 4.0}.get(engine.width, 5.0)

    machine(1, tick_s)
    assert chosen(tmp_path, LONG, MANY, compiling=None).engine.width == 8
    assert widths[0] >= 50
    assert widths[1:] == [1, 8, 2]  # one fit alone in between, for comparison


# what is said of it ---------------------------------------------------------------------------------------------------


def test_the_choice_is_said_in_a_line_and_recorded(tmp_path: Path, machine: Machine):
    machine(2, lambda engine: 0.012)
    setup = chosen(tmp_path)  # 3 steps of 4 slots
    assert setup.words == "4 fits at once, eager, 1 thread: 1 ms a step of one fit"
    kept = setup.recorded()
    assert (kept["slots"], kept["threads"], kept["processes"], kept["compiled"]) == (4, 1, 1, False)
    assert kept["step_s"] == pytest.approx(0.001)
    several = chosen(tmp_path, processes=2, slots=40)
    assert several.words == "2 processes with 40 fits at once each, eager, 1 thread: 100 us a step of one fit"


def test_compiled_code_is_compared_with_eager_code(tmp_path: Path):
    setup = chosen(tmp_path, slots=8)
    setup.numerics = type(setup.numerics)(True, "2", "cpu", "float32")
    setup.tick_s, setup.eager_step_s = 24 * 38e-6, 190e-6
    setup.engine.width = 2
    assert setup.words == (
        "8 fits at once in 4 groups of 2, compiled, 1 thread: 38 us a step of one fit; eager would take 190 us"
    )
