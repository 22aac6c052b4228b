"""Networks, and the places in them where keep_prob and lambda_ act."""

from sweeper.networks.mlp import ACTIVATIONS, Network, mlp
from sweeper.networks.regularize import RegularizedNetwork, regularize

__all__ = ["ACTIVATIONS", "Network", "RegularizedNetwork", "mlp", "regularize"]
