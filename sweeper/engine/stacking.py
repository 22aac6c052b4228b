"""Whether a module can be trained in slots, and how: made ready on a few real rows before the first fit.

A module that `torch.func.vmap` can't take (a branch on its numbers, an operation without a batched form), or one whose
bits would change with the number of slots, runs one slot at a time: the same step, the same randomness, no company.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sweeper.engine.arena import Arena
from sweeper.engine.dropout import WHOLE
from sweeper.engine.layers import in_slots
from sweeper.engine.optimizers import Sgd
from sweeper.engine.products import ONEDNN_ABOVE, steady_products
from sweeper.engine.step import Batch, row_scores, train_step
from sweeper.errors import NetworkError
from sweeper.networks import RegularizedNetwork, regularize
from sweeper.records import Fold, Task, Training

EXAMPLE_ROWS = 8
SOME, MORE = 2, 3  # slots to compare; the engine never computes one alone, see engine.LEAST_LANES
LONGEST_REASON = 160


def example_rows(folds: Sequence[Fold]) -> Tensor:
    """`B x ...`: the first training rows, over again if there are few."""
    rows = folds[0].x_train
    return torch.from_numpy(rows[np.arange(EXAMPLE_ROWS) % len(rows)])


def network_in_slots(
    module: nn.Module, folds: Sequence[Fold], training: Training, task: Task, *, per_channel: bool = False
) -> RegularizedNetwork:
    """A user's module made the engine's, in place.

    Args:
        module: as a user's function returned it, on the CPU.
        folds: what it is to be trained on.
        training: how.
        task: what its output means.
        per_channel: whether dropout before a convolution drops whole channels.

    Raises:
        NetworkError: it can't be trained so; says why and what to do.
    """
    network = regularize(module, example_rows(folds), in_slots(per_channel=per_channel))
    network.survey.check_task(task, _classes(folds) if task is Task.MULTICLASS else 1)
    network.survey.check_batches([len(fold.y_train) for fold in folds], training.batch_size)
    return network


def _classes(folds: Sequence[Fold]) -> int:
    labels = (y for fold in folds for y in (fold.y_train, fold.y_validation, fold.y_test) if len(y))
    return 1 + max(int(y.max()) for y in labels)


def can_stack(network: RegularizedNetwork, example: Tensor, *, device: str = "cpu", compiled: bool = False) -> bool:
    """Whether slots of a network can train together, see `stacking_obstacle`."""
    return stacking_obstacle(network, example, device=device, compiled=compiled) is None


def stacking_obstacle(
    network: RegularizedNetwork, example: Tensor, *, device: str = "cpu", compiled: bool = False
) -> str | None:
    """Why slots of a network can't train together; None if they can.

    One eager step and one evaluation are made for two and for three slots of other weights. The third must not change a
    bit of the first, nor which kernels it may get (`_unsteady`): what looks the same at two and three may not at sixty.

    Args:
        network: on the CPU; is left as it was.
        example: `B x ...` rows.
        device: where fits are to be trained; on a GPU bits hold at a fixed number of slots anyway.
        compiled: whether the batched products are to be the engine's own, see `compiler`.

    Raises:
        NetworkError: slots can't train one at a time either.
    """
    functorch: Any = torch._C._functorch
    functorch._set_vmap_fallback_warning_enabled(False)  # an operation taken slot by slot is slow, but right
    try:
        some, more = (_trial(network, example, slots) for slots in (SOME, MORE))
    except Exception as error:  # whatever a module does that ran well without vmap
        obstacle = f"vmap can't take it: {_short(error)}"
    else:
        found = _difference(some, more) or _unsteady(some.products, more.products, compiled)
        if found is None or torch.device(device).type != "cpu":
            return None
        obstacle = found
    try:
        _trial(network, example, 1)
    except Exception as error:  # likewise
        raise NetworkError(f"the network runs, but can't be trained for a step: {_short(error)}") from error
    return obstacle


Product = tuple[str, tuple[tuple[int, ...], ...]]
"""An operation that multiplies matrices, and the shapes that it is given."""


@dataclass(frozen=True)
class _Trial:
    """The first slot's state and scores after one step on the example, and what multiplied matrices on the way."""

    outcome: Mapping[str, Tensor]
    products: frozenset[Product]


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the products that reach a device's kernels, slots and gradients written out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[Product] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if function.overloadpacket in flop_registry:
            tensors = [each for each in tree_leaves(args) if isinstance(each, Tensor)]
            self.seen.add((function.overloadpacket.__name__, tuple(tuple(tensor.shape) for tensor in tensors)))
        return function(*args, **(kwargs or {}))


def _difference(some: _Trial, more: _Trial) -> str | None:
    for name, value in some.outcome.items():
        other = more.outcome[name]
        if not bool(((value == other) | (value.isnan() & other.isnan())).all()):
            return f"the last bits of {name!r} depend on how many slots there are"
    return None


def _unsteady(some: frozenset[Product], more: frozenset[Product], compiled: bool) -> str | None:
    """The first product whose kernel a library may choose by the number of slots."""
    for name, shapes in sorted(some - more):
        grown = tuple((first * MORE // SOME, *rest) for first, *rest in shapes)
        if name == "bmm" and ("bmm", grown) in more:
            (_, rows, inner), (_, _, columns) = shapes
            if compiled or rows * inner * columns > ONEDNN_ABOVE:
                continue
        factors = " by ".join("x".join(map(str, shape)) for shape in shapes)
        hope = " (compiled code brings its own)" if name == "bmm" else ""
        return f"the kernel for {name} of {factors} is chosen by how many slots there are{hope}"
    return None


def _trial(network: RegularizedNetwork, example: Tensor, slots: int) -> _Trial:
    """Train and evaluate; a single slot without vmap."""
    task = Task.MULTICLASS if network.survey.output_shape[-1] > 1 else Task.REGRESSION
    arena, together = Arena(network, slots, 1, example.device), slots > 1
    _fill(arena, network)
    x, fold = example[None], torch.zeros(slots, dtype=torch.int64)
    y = torch.zeros(x.shape[:2], dtype=torch.int64 if task is Task.MULTICLASS else torch.float32)
    step = train_step(network, task, Sgd(momentum=0.0), together=together)
    evaluate = row_scores(network, task, together=together)
    with warnings.catch_warnings(), torch.no_grad(), steady_products(example.device), _Products() as products:
        warnings.simplefilter("ignore")  # said again when it matters
        losses = step(arena.weights, arena.moments, x, y, _batch(network, slots, x))
        scores, _ = evaluate(arena.weights, x, y, fold)
    named = {name: arena.weights[name] for name in arena.moving} | {"its loss": losses, "its evaluation": scores}
    return _Trial({name: value[0] for name, value in named.items()}, frozenset(products.seen))


def _fill(arena: Arena, network: RegularizedNetwork) -> None:
    """The module's own state in the first slot, and others beside it."""
    own = dict(network.module.named_parameters()) | dict(network.module.named_buffers())
    for name, stacked in arena.weights.items():
        for slot in range(arena.lanes):
            stacked[slot].copy_(own[name] if slot == 0 or not own[name].is_floating_point() else 1.1 * own[name] + 0.01)


def _batch(network: RegularizedNetwork, slots: int, x: Tensor) -> Batch:
    rows = x.shape[1]
    return Batch(
        keys=torch.arange(slots * network.layers * 2, dtype=torch.int32).view(slots, -1, 2),
        thresholds=torch.full((slots, network.layers), WHOLE // 2, dtype=torch.int32),
        decay=torch.full((slots, network.layers), 0.1),
        sizes=(torch.full((slots,), 0.1),),
        fold=torch.zeros(slots, dtype=torch.int64),
        index=torch.arange(rows).expand(slots, -1),
        rows=torch.full((slots,), rows),
        active=torch.ones(slots, dtype=torch.bool),
    )


def _short(error: Exception) -> str:
    """An error's first line, cut to a length that a reader can hold."""
    text = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
