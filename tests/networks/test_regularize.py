"""Every weight layer gets its place, in the order in which it runs; the parameters stay the user's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sweeper.errors import EngineError
from sweeper.networks import mlp, regularize


class Tripled(nn.Module):
    """Stands where a layer stood, with its parameters, and can be told from it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.linear(3 * rows, self.weight, self.bias)


def named() -> nn.Sequential:
    network = nn.Sequential()
    network.add_module("wide", nn.Linear(4, 6))
    network.add_module("bend", nn.Tanh())
    network.add_module("narrow", nn.Linear(6, 2, bias=False))
    return network


def test_places_and_weights_are_named_in_running_order() -> None:
    network = regularize(mlp(3, (7, 7, 3, 2), 1), Tripled)
    assert network.layers == 5
    assert network.places == ("0", "2", "4", "6", "8")
    assert network.weight_names == ("0.weight", "2.weight", "4.weight", "6.weight", "8.weight")


def test_the_users_own_names_are_kept() -> None:
    network = regularize(named(), Tripled)
    assert network.places == ("wide", "narrow")
    assert network.weight_names == ("wide.weight", "narrow.weight")
    assert [type(layer) for layer in network.module.children()] == [Tripled, nn.Tanh, Tripled]


def test_parameters_are_the_same_objects_in_the_same_order() -> None:
    plain = mlp(4, (6, 5), 2)
    before = dict(plain.named_parameters())
    after = dict(regularize(plain, Tripled).module.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_biases_are_no_weights() -> None:
    network = regularize(mlp(4, (6,), 2), Tripled)
    others = {name for name, _ in network.module.named_parameters()} - set(network.weight_names)
    assert others == {"0.bias", "2.bias"}


def test_what_stands_in_a_layers_place_sees_the_layers_input() -> None:
    plain, rows = nn.Sequential(nn.Linear(4, 2)), torch.randn(3, 4)
    expected = plain(3 * rows)
    assert torch.equal(regularize(plain, Tripled).module(rows), expected)


def test_a_network_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(EngineError, match=r"no linear layer, so there is nothing to regularise. Give it at least one"):
        regularize(nn.Sequential(nn.ReLU()), Tripled)
