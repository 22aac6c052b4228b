"""Which hyperparameters decide the loss: Optuna's importance evaluators over a space's recorded trials.

Two questions, two answers. **fANOVA** (Hutter et al., ICML 2014): what share of the loss's variance over the whole
space does each hyperparameter explain? **PED-ANOVA** (Watanabe et al., IJCAI 2023), conditional since Optuna 5 (arXiv
2601.20800): what decides whether a trial is among the best tenth? A shared value that all switches turn off (`masked`)
is left out of such trials, so that the conditional evaluator sees that it did not act; fANOVA knows no conditions.

Both are shares that sum to 1, so they say how hyperparameters compare, not that any of them matters. What they say is
as good as its trials: studies are divided into up to five groups and each group is judged by itself, so that the
spread over groups shows what is noise. Replicates differ in difficulty: within a group each study's losses are first
brought to one median.

Not among the names of `sweeper.search` itself: the evaluators load scikit-learn, for which no worker should wait.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from optuna.distributions import BaseDistribution
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import create_trial

from sweeper.records import ParameterValue, TrialState
from sweeper.search.proposer import PastTrial, new_study
from sweeper.search.samplers import SamplerSpec, distributions
from sweeper.space import Parameter

GROUPS = 5
LEAST_TRIALS = 20  # of a group; fewer say nothing
_FANOVA_TRIALS = 128  # of a group at most: a forest of n trials takes n^2; 128 take a second
_BEST = 0.1  # the share of trials that PED-ANOVA looks for
_LEAST_BEST = 5  # and how many these should be at least (Optuna's advice)
_SWITCHES = {"keep_prob": "drop_", "lambda": "l2_"}  # a masked value, and what its layers' switches begin with


@dataclass(frozen=True, slots=True)
class Importance:
    """How much one hyperparameter decides, among those of its space.

    Attributes:
        parameter: its name, e.g. "keep_prob_2".
        layers: the numbers of the layers that it belongs to; none for one that all layers share, or a placebo.
        ped_anova: its share in what decides about the best tenth, one value per group of studies.
        fanova: its share in the variance of the loss, likewise.
    """

    parameter: str
    layers: tuple[int, ...]
    ped_anova: tuple[float, ...]
    fanova: tuple[float, ...]


def importances(parameters: Sequence[Parameter], studies: Sequence[Sequence[PastTrial]]) -> tuple[Importance, ...]:
    """The importance of each hyperparameter of one space; the same trials give the same numbers.

    Args:
        parameters: of the space.
        studies: the trials of each of its studies; only complete ones with a finite value count.

    Returns:
        In the order of the parameters; empty where there are none, or no group has 20 complete trials that differ.
    """
    values = distributions(SamplerSpec(), parameters)
    levelled = [_levelled(study) for study in studies]
    most = sum(map(len, levelled)) // LEAST_TRIALS
    count = max(1, min(GROUPS, len(levelled), most))
    groups = [[study for study in levelled[start::count] if study] for start in range(count)]
    judged = [_judged(group, values) for group in groups if _says_something(group)]
    if not parameters or not judged:
        return ()
    return tuple(
        Importance(
            parameter.name,
            _layers(parameter.name),
            tuple(float(ped[parameter.name]) for ped, _ in judged),
            tuple(float(fanova[parameter.name]) for _, fanova in judged),
        )
        for parameter in parameters
    )


Scored = tuple[Mapping[str, ParameterValue], float]
Shares = Mapping[str, float]


def _levelled(study: Sequence[PastTrial]) -> list[Scored]:
    """Parameters and loss of the complete trials in order, the losses less their median."""
    complete = [
        (trial.params, trial.value)
        for trial in sorted(study, key=lambda trial: trial.number)
        if trial.state is TrialState.COMPLETE and trial.value is not None and math.isfinite(trial.value)
    ]
    level = median(value for _, value in complete) if complete else 0.0
    return [(params, value - level) for params, value in complete]


def _says_something(group: Sequence[Sequence[Scored]]) -> bool:
    losses = {value for study in group for _, value in study}
    return sum(map(len, group)) >= LEAST_TRIALS and len(losses) > 1


def _judged(group: Sequence[Sequence[Scored]], values: Mapping[str, BaseDistribution]) -> tuple[Shares, Shares]:
    """PED-ANOVA's and fANOVA's shares in one group of studies."""
    trials = [scored for study in group for scored in study]
    best = min(0.5, max(_BEST, _LEAST_BEST / len(trials)))
    each = -(-_FANOVA_TRIALS // len(group))
    few = [scored for study in group for scored in study[:each]]
    acting = [({name: value for name, value in params.items() if _acts(name, params)}, loss) for params, loss in trials]
    return (
        _shares(acting, values, PedAnovaImportanceEvaluator(target_quantile=best)),
        _shares(few, values, FanovaImportanceEvaluator(seed=0)),
    )


def _acts(name: str, params: Mapping[str, ParameterValue]) -> bool:
    """Whether a value does anything: a masked one does where a switch of its layers is on."""
    begin = _SWITCHES.get(name)
    switches = [on for other, on in params.items() if begin and other.startswith(begin)]
    return any(switches) or not switches


def _shares(
    trials: Sequence[Scored], values: Mapping[str, BaseDistribution], evaluator: BaseImportanceEvaluator
) -> Shares:
    """Every hyperparameter's share; 0 for one that never acted."""
    study = _study(trials, values)
    present = [name for name in values if any(name in params for params, _ in trials)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some regimes for parameter")  # the spread over groups shows it
        found = get_param_importances(study, evaluator=evaluator, params=present)
    return dict.fromkeys(values, 0.0) | found


def _study(trials: Sequence[Scored], values: Mapping[str, BaseDistribution]) -> Study:
    study = new_study(InMemoryStorage(), RandomSampler(seed=0))
    study.add_trials(
        create_trial(params=dict(params), distributions={name: values[name] for name in params}, value=loss)
        for params, loss in trials
    )
    return study


def _layers(name: str) -> tuple[int, ...]:
    """The layers in a parameter's name: (1, 2) in "keep_prob_1_2"; none in "keep_prob" and "placebo_1"."""
    numbers = re.search(r"(?:_\d+)+$", name)
    return () if numbers is None or name.startswith("placebo") else tuple(map(int, numbers[0][1:].split("_")))
