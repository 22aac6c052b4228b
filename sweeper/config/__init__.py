"""Sweep files: read, checked and turned into frozen values."""

from sweeper.config.base import Problem, Section
from sweeper.config.model import Data, Mlp, Model, Search, Sweep, Train, json_schema
from sweeper.config.reader import SweepFile, parse_sweep, read_sweep
from sweeper.config.samplers import CmaEs, Gp, Grid, Qmc, Random, Sampler, Tpe
from sweeper.config.spaces import Dimensions, Grouped, Ranges, Space, Start

__all__ = [
    "CmaEs",
    "Data",
    "Dimensions",
    "Gp",
    "Grid",
    "Grouped",
    "Mlp",
    "Model",
    "Problem",
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
]
