"""Networks, and the places in them where keep_prob and lambda_ act."""

from sweeper.networks.head import head
from sweeper.networks.mlp import ACTIVATIONS, Network, mlp
from sweeper.networks.regularize import RegularizedNetwork, regularize
from sweeper.networks.survey import Survey, survey

__all__ = [
    "ACTIVATIONS",
    "Network",
    "RegularizedNetwork",
    "Survey",
    "head",
    "mlp",
    "regularize",
    "survey",
]
