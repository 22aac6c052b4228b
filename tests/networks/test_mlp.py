"""The lectures' perceptron is the one that people would write by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sweeper.networks import ACTIVATIONS, mlp


def test_it_alternates_linear_layers_and_activations_and_ends_raw() -> None:
    network = mlp(3, (7, 7, 3, 2), 1, "tanh")
    kinds = [type(layer) for layer in network]
    assert kinds == [nn.Linear, nn.Tanh] * 4 + [nn.Linear]
    shapes = [tuple(layer.weight.shape) for layer in network if isinstance(layer, nn.Linear)]
    assert shapes == [(7, 3), (7, 7), (3, 7), (2, 3), (1, 2)]


def test_without_hidden_layers_it_is_one_linear_layer() -> None:
    (layer,) = mlp(5, (), 2)
    assert isinstance(layer, nn.Linear)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_stands_between_the_layers(name: str) -> None:
    network = mlp(4, (6, 5), 2, name)
    assert [type(network[place]) for place in (1, 3)] == [ACTIVATIONS[name]] * 2
    assert network(torch.zeros(9, 4)).shape == (9, 2)


def test_its_initial_weights_are_those_of_torch() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        ours = mlp(4, (6,), 2)
        torch.manual_seed(5)
        theirs = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
