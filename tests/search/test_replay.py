"""An interrupted study, rebuilt from what the ledger keeps, goes on bit for bit as if it never had been.

The ledger keeps JSON, so what is rebuilt from went through JSON; it holds failed, pruned and enqueued trials.
"""

from __future__ import annotations

import ast
import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import sweeper.search
from sweeper.records import TrialState
from sweeper.search import KINDS, PastTrial, Proposer, SamplerSpec
from sweeper.space import Ranges, Space

FLOATS = Space("floats", 3, "per_layer", "shared")
MIXED = Space("mixed", 3, "masked", "masked", ranges=Ranges(input_keep_prob=(0.8, 1.0)))
FIXED = Space("fixed", 3)
SHORT: dict[str, dict[str, Any]] = {"tpe": {"n_startup_trials": 4}, "gp": {"n_startup_trials": 2}}
TRIALS = {"gp": 10, "cmaes": 36}  # the others: 24; cmaes sees three generations
SEED = 11


def loss(params: dict[str, Any]) -> float:
    """A bowl in every parameter, lambda on its own scale."""
    return sum((math.log(v) if "lambda" in name else float(v) - 0.6) ** 2 for name, v in params.items())


def ending(trial: PastTrial) -> PastTrial:
    """How a trial ends is a function of its number and parameters; every 5th fails, every 7th is pruned."""
    if trial.number % 5 == 3:
        return replace(trial, state=TrialState.FAIL)
    if trial.number % 7 == 2:
        return replace(trial, state=TrialState.PRUNED, value=loss(dict(trial.params)), step=trial.number % 3)
    return replace(trial, state=TrialState.COMPLETE, value=loss(dict(trial.params)))


@dataclass
class Ledger:
    """A worker's view of a study: it asks while fewer than `window` trials run, and ends the middle one."""

    space: Space
    spec: SamplerSpec
    window: int
    rows: list[PastTrial] = field(default_factory=list)

    def proposer(self) -> Proposer:
        proposer = Proposer(self.space.parameters, self.spec, SEED)
        rows = json.loads(json.dumps([asdict(row) for row in self.rows]))
        past = [row | {"state": TrialState(row["state"]), "running": tuple(row["running"])} for row in rows]
        proposer.rehydrate([PastTrial(**row) for row in past])
        return proposer

    def run(self, proposer: Proposer, until: int) -> None:
        while len(self.rows) < until:
            running = [row for row in self.rows if not row.state.is_finished]
            if len(running) < self.window:
                self.ask(proposer)
            else:
                self.end(proposer, running[len(running) // 2])

    def ask(self, proposer: Proposer) -> None:
        enqueued = len(self.rows) in (0, 6)
        proposal = proposer.ask(middle(self.space) if enqueued else None)
        assert proposal.number == len(self.rows)
        row = PastTrial(proposal.number, proposal.params, TrialState.WAITING, running=proposal.running)
        self.rows.append(replace(row, enqueued=proposal.enqueued))

    def end(self, proposer: Proposer, trial: PastTrial) -> None:
        ended = ending(trial)
        proposer.tell(ended.number, ended.state, ended.value, ended.step)
        self.rows[trial.number] = ended


def middle(space: Space) -> dict[str, Any]:
    return {p.name: True if p.kind == "bool" else (p.low + p.high) / 2 for p in space.parameters}


def study(kind: str, space: Space, window: int, cuts: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """All parameters of a study that was interrupted, and rebuilt in a new process, after each of `cuts`."""
    ledger = Ledger(space, SamplerSpec(kind, SHORT.get(kind, {})), window)
    for until in (*cuts, TRIALS.get(kind, 24)):
        ledger.run(ledger.proposer(), until)
    return [dict(row.params) for row in ledger.rows]


@pytest.mark.parametrize("window", [1, 4], ids=["sequential", "four_at_once"])
@pytest.mark.parametrize("space", [FLOATS, MIXED], ids=lambda space: space.name)
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_study_goes_on_as_if_it_never_had_been(kind: str, space: Space, window: int) -> None:
    whole = study(kind, space, window)
    often = tuple(range(1, len(whole)))
    for cuts in [(1,), (7,), often] if kind != "gp" else [(5, 8)]:  # a GP thinks for a fifth of a second
        assert study(kind, space, window, cuts) == whole


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "grid"])
def test_a_space_without_parameters_goes_on_too(kind: str) -> None:
    assert study(kind, FIXED, window=2, cuts=(3, 9)) == [{}] * TRIALS.get(kind, 24)


@pytest.mark.parametrize("kind", ["tpe", "gp", "cmaes"])
def test_results_do_steer_the_search(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above would prove nothing about a sampler's memory."""
    one = study(kind, FLOATS, window=1)
    monkeypatch.setitem(globals(), "loss", lambda params: -sum(map(float, params.values())))
    other = study(kind, FLOATS, window=1)
    assert one[:2] == other[:2]
    assert one[-1] != other[-1]


@pytest.mark.parametrize("kind", ["random", "qmc", "grid"])
def test_without_memory_any_concurrency_gives_the_same_study(kind: str) -> None:
    assert study(kind, MIXED, window=5) == study(kind, MIXED, window=1)


@pytest.mark.parametrize("renewed", [1000, 5])
@pytest.mark.parametrize("kind", ["random", "qmc", "grid"])
def test_without_memory_a_study_goes_on_from_its_numbers_alone(
    kind: str, renewed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.search.proposer._RENEWED", renewed)
    ledger = Ledger(MIXED, SamplerSpec(kind), window=4)
    ledger.run(ledger.proposer(), until=15)
    resumed = Proposer(MIXED.parameters, SamplerSpec(kind), SEED)
    running = [row.number for row in ledger.rows if not row.state.is_finished]
    resumed.resume(len(ledger.rows), sum(not row.enqueued for row in ledger.rows), running)
    rebuilt = ledger.proposer()
    for _ in range(7):
        resumed_one, rebuilt_one = resumed.ask(), rebuilt.ask()
        assert replace(resumed_one, seconds=0.0) == replace(rebuilt_one, seconds=0.0)
        for proposer in (resumed, rebuilt):
            proposer.tell(running[0], TrialState.COMPLETE, 0.5)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [("tpe", {"n_startup_trials": 4}), ("cmaes", {"consider_pruned_trials": True})],
)
def test_pruned_trials_count_by_their_step_and_value(kind: str, arguments: dict[str, Any]) -> None:
    def next_after(values: list[float], steps: list[int]) -> dict[str, Any]:
        proposer = Proposer(FLOATS.parameters, SamplerSpec(kind, arguments), SEED)
        if kind == "cmaes":  # it takes its space from trials that were completed
            proposer.tell(proposer.ask().number, TrialState.COMPLETE, 100.0)
        for value, step in zip(values, steps, strict=True):
            proposer.tell(proposer.ask().number, TrialState.PRUNED, value, step)
        return proposer.ask().params

    values = [0.1 * i for i in range(12)]
    same_step = next_after(values, [3] * 12)
    assert next_after(values[::-1], [3] * 12) != same_step
    if kind == "tpe":  # the later a trial was pruned, the better
        assert next_after(values, list(range(12))) == next_after(values[::-1], list(range(12))) != same_step


def test_nothing_in_the_room_imports_a_way_to_unpickle() -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    sources = list(Path(sweeper.search.__file__).parent.glob("*.py"))
    nodes = [node for source in sources for node in ast.walk(ast.parse(source.read_text("utf-8")))]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert "optuna" in imported
    assert not {name.split(".")[0] for name in imported} & forbidden
