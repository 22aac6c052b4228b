"""fast.ai's head: what its builder makes of xtra_fc and ps, written down from its source."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sweeper.networks import head


@pytest.mark.parametrize("xtra_fc", [(), (512,), (16, 8)])
def test_each_layer_is_normalised_and_linear_and_all_but_the_last_end_in_relu(xtra_fc: tuple[int, ...]) -> None:
    network = head(20, xtra_fc, 3)
    kinds = [type(layer) for layer in network]
    assert kinds == [nn.BatchNorm1d, nn.Linear, nn.ReLU] * len(xtra_fc) + [nn.BatchNorm1d, nn.Linear]
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [20, *xtra_fc]
    assert [layer.out_features for layer in linear] == [*xtra_fc, 3]
    assert [layer.num_features for layer in network if isinstance(layer, nn.BatchNorm1d)] == [20, *xtra_fc]


def test_it_makes_of_rows_what_fastais_makes_of_them_with_nothing_dropped() -> None:
    """fast.ai's list of layers, its dropouts in evaluation mode, on the same weights."""
    ours = head(6, (5,), 2)
    theirs = nn.Sequential(
        nn.BatchNorm1d(6), nn.Dropout(0.25), nn.Linear(6, 5), nn.ReLU(),
        nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2),
    )  # fmt: skip
    for place, same in zip((0, 2, 4, 6), (0, 1, 3, 4), strict=True):
        theirs[place].load_state_dict(ours[same].state_dict())
    rows = torch.randn(9, 6)
    assert torch.equal(ours.eval()(rows), theirs.eval()(rows))


def test_its_initial_weights_are_fastais() -> None:
    """He normal: deviation sqrt(2 / inputs); biases 0."""
    torch.manual_seed(0)
    first = head(400, (300,), 2)[1]
    assert isinstance(first, nn.Linear)
    assert float(first.weight.detach().std()) == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert not first.bias.any()
