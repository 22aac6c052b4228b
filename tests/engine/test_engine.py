"""The engine's door: what it refuses, gives back, and needs installed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import sweeper
from engine import plain
from engine.workloads import ADAM, build, fit, fold, run_all, run_alone
from sweeper.engine import Engine, can_compile, device_facts, find_device
from sweeper.engine.random import row_order, slot_keys, uniform24
from sweeper.errors import EngineError
from sweeper.records import FitResult, Setting, Task

pytestmark = pytest.mark.usefixtures("one_thread")

INPUTS, CLASSES = 20, 4
NETWORK = build(INPUTS, (32, 32), CLASSES)
LAYERS = 3
FOLDS = [fold(Task.MULTICLASS, INPUTS, rows, CLASSES, seed) for seed, rows in enumerate([(100, 60, 50), (65, 40, 30)])]
FITS = [fit(number, LAYERS, fold=number % 2) for number in range(6)]
engine_of = partial(Engine, NETWORK, FOLDS, ADAM, Task.MULTICLASS)

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
needs_compiler = pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler")


def figures(result: FitResult) -> tuple[object, ...]:
    """What training decides."""
    scores = tuple(replace(score, at_ms=0) for score in result.scores)
    return result.outcome, result.best_epoch, result.test_loss, result.squared_norms, scores


def test_more_fits_than_free_slots_are_refused() -> None:
    engine = engine_of(slots=2)
    engine.admit(FITS[:1])
    with pytest.raises(EngineError, match="2 fits were admitted, but only 1 of 2 slots are free"):
        engine.admit(FITS[1:3])
    assert engine.free == 1


def test_a_setting_with_another_number_of_layers_is_refused() -> None:
    engine = engine_of(slots=1)
    with pytest.raises(EngineError, match="fit one: its setting has 2 layers, but the network has 3 weight layers"):
        engine.admit([replace(FITS[0], key="one", setting=Setting((1.0, 1.0), (0.0, 0.0)))])
    assert engine.free == 1


@no_cuda
def test_cuda_without_cuda_is_refused() -> None:
    with pytest.raises(EngineError, match=r"device 'cuda' was asked for, but PyTorch sees .*Pass --device cpu"):
        engine_of(slots=1, device="cuda")


@no_cuda
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert find_device("auto") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:zero", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(EngineError, match=f"device '{name}' is not known. Choose auto, cpu, cuda, or cuda:0"):
        find_device(name)


def test_a_devices_facts_are_those_of_this_process() -> None:
    facts = device_facts("cpu")
    assert (facts.kind, facts.torch, facts.threads) == ("cpu", torch.__version__, torch.get_num_threads())
    assert facts.energy.startswith(("measured by RAPL", "not measured: "))


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(EngineError, match=r"optimizer 'lion' is not known. Choose adam or sgd"):
        Engine(NETWORK, FOLDS, replace(ADAM, optimizer="lion"), Task.MULTICLASS, slots=1)


def test_no_folds_are_refused() -> None:
    with pytest.raises(EngineError, match="at least one fold"):
        Engine(NETWORK, [], ADAM, Task.MULTICLASS, slots=1)


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(EngineError, match="no linear layer"):
        Engine(lambda: nn.Sequential(nn.ReLU()), FOLDS, ADAM, Task.MULTICLASS, slots=1)


def test_slots_are_taken_and_given_back() -> None:
    engine = engine_of(slots=3)
    assert (engine.slots, engine.free) == (3, 3)
    engine.admit(FITS[:2])
    assert engine.free == 1
    results = run_all(engine, FITS[2:])
    assert set(results) == {one.key for one in FITS}
    assert engine.free == 3


def test_an_evicted_fit_leaves_its_slot_and_says_what_it_cost() -> None:
    engine = engine_of(slots=3)
    engine.admit(FITS[:3])
    engine.train()
    engine.train()
    costs = engine.evict([FITS[1].key, "nobody"])
    assert set(costs) == {FITS[1].key}
    assert (costs[FITS[1].key].epochs, costs[FITS[1].key].steps) == (2, 2 * 3)
    assert engine.free == 1
    results = run_all(engine, FITS[3:4])
    assert set(results) == {FITS[0].key, FITS[2].key, FITS[3].key}
    for key in results:
        (one,) = (one for one in FITS if one.key == key)
        assert figures(results[key]) == figures(run_alone(engine, one))


def test_without_keys_every_fit_is_given_up() -> None:
    engine = engine_of(slots=3)
    engine.admit(FITS[:2])
    assert set(engine.evict()) == {FITS[0].key, FITS[1].key}
    assert engine.free == 3
    assert engine.evict() == {}
    assert engine.train().results == ()


def test_a_rehearsal_takes_time_and_leaves_no_trace() -> None:
    engine = engine_of(slots=2)
    assert engine.rehearse() > 0
    assert engine.free == 2
    assert figures(run_alone(engine, FITS[0])) == figures(run_alone(engine_of(slots=2), FITS[0]))


@pytest.mark.slow
@needs_compiler
def test_a_refill_compiles_nothing_anew() -> None:
    engine = engine_of(slots=2, compiled=True)
    engine.admit(FITS[:2])
    engine.train()
    with torch.compiler.set_stance("fail_on_recompile"):
        engine.evict([FITS[0].key])
        engine.train()  # a slot stands empty
        results = run_all(engine, FITS[2:])
    assert len(results) == 5


# Each heavy dependency has one doorway, so the engine runs on a machine that has torch and numpy alone.
BLOCKED = ("optuna", "mlflow", "sqlalchemy", "alembic", "pydantic", "scipy", "sklearn", "typer", "rich", "yaml")
ALONE = f"""
import sys
from importlib.machinery import PathFinder

class Without:
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {BLOCKED!r} else PathFinder.find_spec(name, path, target)

sys.meta_path = [Without() if finder is PathFinder else finder for finder in sys.meta_path]
import numpy as np
from functools import partial
from sweeper.engine import Engine
from sweeper.networks import mlp
from sweeper.records import Fit, Fold, Setting, Task, Training
x, y = np.eye(8, 5, dtype=np.float32), np.arange(8) % 3
engine = Engine(
    partial(mlp, 5, (4,), 3), [Fold(x, y, x, y, x, y)], Training(1, 4), Task.MULTICLASS, slots=2
)
engine.admit([Fit("one", Setting((1.0, 0.5), (0.0, 1.0)), 1, 0)])
(result,) = engine.train().results
print(result.outcome.name)
"""


def test_the_engine_needs_torch_and_numpy_alone() -> None:
    home = str(Path(sweeper.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", ALONE],
        env=os.environ | {"PYTHONPATH": home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "FINISHED\n"), run.stderr


# On a GPU. Tolerances: full float32 products differ from a CPU's by about 1e-6 a step.
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


class TestOnCuda:
    pytestmark = on_gpu

    def test_integers_agree_bit_for_bit(self) -> None:
        seeds = torch.tensor([0, 1, 2**62 + 12345, 2**63 - 1])
        answers = []
        for device in ("cpu", "cuda"):
            here = seeds.to(device)
            keys = slot_keys(here, torch.tensor(2, device=device), torch.arange(4, device=device))
            element = torch.arange(4096, dtype=torch.int32, device=device)[None]
            bits = uniform24(keys[:, :1], keys[:, 1:], element)
            orders = row_order(here, here % 7, torch.full_like(here, 97), longest=128)
            answers.append((bits.cpu(), orders.cpu()))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*answers, strict=True))
        assert answers[0][1][0, :97].tolist() == plain.order(0, 0, 97).tolist()

    @pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_losses_agree_with_the_cpus(self, compiled: bool) -> None:
        there = run_all(engine_of(slots=3, device="cuda", compiled=compiled), FITS)
        here = run_all(engine_of(slots=3), FITS)
        for key, result in there.items():
            assert result.scores[0].train_loss == pytest.approx(here[key].scores[0].train_loss, abs=1e-4)
            assert result.test_loss == pytest.approx(here[key].test_loss, abs=1e-2)

    def test_at_a_fixed_number_of_slots_a_fits_result_is_its_own(self) -> None:
        engine = engine_of(slots=3, device="cuda")
        together = run_all(engine, FITS)
        for one in FITS:
            assert figures(together[one.key]) == figures(run_alone(engine, one))
