"""The engine's layers compute what PyTorch's own do, and give a slot its own bits."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from sweeper.engine import convolution as convolutions
from sweeper.engine.convolution import convolution, window_of
from sweeper.engine.dropout import WHOLE, inverted_dropout
from sweeper.engine.layers import SlotBatchNorm, in_slots
from sweeper.engine.products import steady_products
from sweeper.engine.random import slot_keys

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")

# convolutions ---------------------------------------------------------------------------------------------------------


def drawn_convolution(seed: int) -> nn.Conv1d | nn.Conv2d:
    """One of all the ways to write a convolution, drawn at random."""
    draw = random.Random(seed)
    kind, dims = draw.choice(((nn.Conv1d, 1), (nn.Conv2d, 2)))
    groups, per_group = draw.choice((1, 1, 2, 4)), draw.choice((1, 2, 3))
    padding = draw.choice(("same", "valid", tuple(draw.choice((0, 1, 2)) for _ in range(dims))))
    torch.manual_seed(seed)
    return kind(
        groups * per_group,
        groups * draw.choice((1, 2, 5)),
        tuple(draw.choice((1, 3, 5)) for _ in range(dims)),
        stride=1 if padding == "same" else tuple(draw.choice((1, 2, 3)) for _ in range(dims)),
        padding=padding,
        dilation=tuple(draw.choice((1, 2)) for _ in range(dims)),
        groups=groups,
        bias=draw.random() < 0.5,
        padding_mode=draw.choice(("zeros", "zeros", "reflect", "replicate", "circular")),
    )


@pytest.fixture
def as_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(convolutions.AS_PRODUCT, "cpu", False)


def both_ways(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Output and gradients: PyTorch's and ours."""
    layer = drawn_convolution(seed)
    x = torch.randn(5, layer.in_channels, *(10, 11)[: layer.weight.dim() - 2])
    theirs, ours = layer(x), convolution(x, layer.weight, layer.bias, window_of(layer))
    yield theirs, ours
    weighed, inputs = torch.randn_like(theirs), x.requires_grad_()
    outputs = layer(inputs), convolution(inputs, layer.weight, layer.bias, window_of(layer))
    yield from zip(
        *(torch.autograd.grad((output * weighed).sum(), [inputs, *layer.parameters()]) for output in outputs),
        strict=True,
    )


@pytest.mark.parametrize("seed", range(60))
def test_a_convolution_is_pytorchs_own(seed: int) -> None:
    for theirs, ours in both_ways(seed):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.detach().abs().max()))


@pytest.mark.usefixtures("as_pytorch")
@pytest.mark.parametrize("seed", range(6))
def test_the_switch_leads_to_pytorchs_kernel(seed: int) -> None:
    for theirs, ours in both_ways(seed):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_its_output_can_be_viewed_and_a_single_row_needs_no_batch() -> None:
    layer = nn.Conv2d(2, 3, 3)
    x = torch.randn(4, 2, 6, 6)
    ours = convolution(x, layer.weight, layer.bias, window_of(layer))
    assert ours.view(4, -1).shape == (4, 48)
    assert torch.allclose(convolution(x[1], layer.weight, layer.bias, window_of(layer)), ours[1], atol=1e-6)


CONVOLUTIONS = list(itertools.product((1, 7, 32), ((1, 16, 1), (16, 16, 1), (3, 5, 1), (8, 8, 8)), (4, 8)))


@pytest.mark.parametrize(("rows", "channels", "side"), CONVOLUTIONS)
def test_a_slots_convolution_does_not_depend_on_slots_or_threads(
    rows: int, channels: tuple[int, int, int], side: int
) -> None:
    inputs, outputs, groups = channels
    window = window_of(nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups))
    x, w, g = (
        torch.randn(9, *shape)
        for shape in ((rows, inputs, side, side), (outputs, inputs // groups, 3, 3), (rows, outputs, side, side))
    )

    def energy(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
        return (convolution(x, w, None, window) * g).flatten(1).sum(1).sum(0)

    forward, backward = vmap(lambda x, w: convolution(x, w, None, window)), vmap(grad(energy, argnums=(0, 1)))
    seen = []
    for threads, slots in ((1, 2), (1, 3), (1, 9), (2, 2), (2, 9)):
        with torch.no_grad(), steady_products(CPU), running_on(threads):
            some = x[:slots], w[:slots], g[:slots]
            seen.append([each[:2].clone() for each in (forward(*some[:2]), *backward(*some))])
    assert all(torch.equal(ours, first) for other in seen for ours, first in zip(other, seen[0], strict=True))


@contextmanager
def running_on(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# batch normalisation --------------------------------------------------------------------------------------------------

SHAPES = {"units": (nn.BatchNorm1d, ()), "1-d": (nn.BatchNorm1d, (5,)), "2-d": (nn.BatchNorm2d, (3, 4))}
each_shape = pytest.mark.parametrize(("kind", "behind"), SHAPES.values(), ids=SHAPES.keys())
CHANNELS, ROWS = 4, 8


def pair(kind: type[nn.BatchNorm1d | nn.BatchNorm2d], **options: object) -> tuple[nn.Module, SlotBatchNorm]:
    """PyTorch's layer and ours with the same weights."""
    theirs, ours = kind(CHANNELS, **options), kind(CHANNELS, **options)  # type: ignore[arg-type]
    if theirs.affine:
        for parameter, mine in zip(theirs.parameters(), ours.parameters(), strict=True):
            nn.init.normal_(parameter)
            mine.data.copy_(parameter.data)
    in_slots()(ours, False)
    assert isinstance(ours, SlotBatchNorm)
    return theirs, ours


@each_shape
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("affine", [True, False])
def test_it_is_pytorchs_on_the_real_rows_of_full_and_short_batches(
    kind: type[nn.BatchNorm1d], behind: tuple[int, ...], momentum: float | None, affine: bool
) -> None:
    theirs, ours = pair(kind, momentum=momentum, affine=affine)
    for rows in (ROWS, 3, ROWS, 2):
        x = 3 + 2 * torch.randn(ROWS, CHANNELS, *behind)
        weighed = torch.randn(rows, CHANNELS, *behind)
        ours.rows = torch.tensor(rows)
        gradients = []
        for layer, batch in ((theirs, x[:rows].clone()), (ours, x.clone())):
            output = layer(batch.requires_grad_())[:rows]
            asked = [batch, *layer.parameters()]
            gradients.append([output, *torch.autograd.grad((output * weighed).sum(), asked)])
        for expected, found in zip(*gradients, strict=True):
            assert torch.allclose(found[:rows] if found.shape[0] == ROWS else found, expected, atol=1e-4)
    for name, buffer in theirs.named_buffers():
        assert torch.allclose(dict(ours.named_buffers())[name], buffer, atol=1e-5), name
    x = torch.randn(5, CHANNELS, *behind)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-5)


@each_shape
def test_padded_rows_touch_neither_statistics_nor_real_rows(
    kind: type[nn.BatchNorm1d], behind: tuple[int, ...]
) -> None:
    x, outcomes = torch.randn(ROWS, CHANNELS, *behind), []
    for padding in (0.0, 1e6, float("nan")):
        _, ours = pair(kind, affine=False)
        ours.rows = torch.tensor(3)
        batch = torch.cat([x[:3], torch.full_like(x[3:], padding)])
        outcomes.append([ours(batch)[:3], *(b.clone() for b in ours.buffers())])
    assert all(torch.equal(one, first) for other in outcomes for one, first in zip(other, outcomes[0], strict=True))


def test_evaluation_writes_nothing() -> None:
    _, ours = pair(nn.BatchNorm1d)
    before = [buffer.clone() for buffer in ours.buffers()]
    ours.eval()(torch.randn(ROWS, CHANNELS))
    assert all(torch.equal(now, then) for now, then in zip(ours.buffers(), before, strict=True))


# dropout before them --------------------------------------------------------------------------------------------------


def key(step: int = 0) -> tuple[Tensor, Tensor]:
    key0, key1 = slot_keys(torch.tensor(7), torch.tensor(0), torch.tensor(step))
    return key0, key1


HALF = torch.tensor(WHOLE // 2, dtype=torch.int32)


def test_a_channel_is_dropped_as_a_whole() -> None:
    maps = torch.ones(200, 50, 3, 4)
    dropped = inverted_dropout(maps, *key(), HALF, per_channel=True)
    first = dropped[:, :, :1, :1]
    assert torch.equal(dropped, first.expand_as(dropped))
    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert float((first != 0).double().mean()) == pytest.approx(0.5, abs=4 * (0.25 / 10_000) ** 0.5)
    by_unit = inverted_dropout(maps, *key(), HALF)
    assert not torch.equal(by_unit, by_unit[:, :, :1, :1].expand_as(by_unit))


def test_each_run_of_a_shared_layer_has_a_mask_of_its_own() -> None:
    ones = torch.ones(1 << 18)
    masks = [inverted_dropout(ones, *key(), HALF, use=use) != 0 for use in range(4)]
    for one, other in itertools.combinations(masks, 2):
        agree = float((one == other).double().mean())
        assert agree == pytest.approx(0.5, abs=4 * (0.25 / ones.numel()) ** 0.5)
    assert torch.equal(masks[0], inverted_dropout(ones, *key(), HALF) != 0)
    layer = nn.Linear(64, 64, bias=False)
    nn.init.eye_(layer.weight)
    in_slots()(layer, True)
    layer.key0, layer.key1 = key()  # type: ignore[assignment]
    layer.threshold = HALF  # type: ignore[assignment]
    first, second = layer(torch.ones(64, 64)), layer(torch.ones(64, 64))
    assert not torch.equal(first, second)
