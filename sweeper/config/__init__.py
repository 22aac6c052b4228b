"""Sweep files: read, checked and turned into frozen values."""

from sweeper.config.base import Problem, Section
from sweeper.config.edit import with_trials
from sweeper.config.model import Budget, Data, Search, Sweep, Train, json_schema, with_defaults
from sweeper.config.models import Backbone, Head, Mlp, Model, Python
from sweeper.config.pruners import Asha, Hyperband, MedianRule, NoPruner, Pruner
from sweeper.config.reader import SweepFile, parse_sweep, read_sweep
from sweeper.config.samplers import CmaEs, Gp, Grid, Qmc, Random, Sampler, Tpe
from sweeper.config.spaces import PS, Dimensions, Grouped, Ranges, Space, Start

__all__ = [
    "PS",
    "Asha",
    "Backbone",
    "Budget",
    "CmaEs",
    "Data",
    "Dimensions",
    "Gp",
    "Grid",
    "Grouped",
    "Head",
    "Hyperband",
    "MedianRule",
    "Mlp",
    "Model",
    "NoPruner",
    "Problem",
    "Pruner",
    "Python",
    "Qmc",
    "Random",
    "Ranges",
    "Sampler",
    "Search",
    "Section",
    "Space",
    "Start",
    "Sweep",
    "SweepFile",
    "Tpe",
    "Train",
    "json_schema",
    "parse_sweep",
    "read_sweep",
    "with_defaults",
    "with_trials",
]
