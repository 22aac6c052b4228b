"""What a module consists of, found by running a copy of it on a few rows before anything is trained.

Letters: B rows of the example, L weight layers, C outputs.
A weight layer is a linear layer or a convolution (1-d, 2-d) whose weight trains. They are numbered in the order in
which they run: keep_prob[l] acts on the input of layer l + 1, lambda_ on its weight. What can't be trained beside other
fits is refused with the reason and what to do (`refusals`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from sweeper.errors import NetworkError
from sweeper.networks import refusals
from sweeper.records import Task, WeightLayer

Example = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class BatchNorm:
    """A batch normalisation that runs: its name, and how many values per channel one row brings."""

    name: str
    values_per_row: int


@dataclass(frozen=True)
class Survey:
    """What a module consists of.

    Attributes:
        layers: the L weight layers in the order in which they run.
        norms: batch normalisations, likewise.
        dropouts: the module's own dropouts, which are replaced by the identity.
        others: matrices that train without keep_prob and lambda_, as `named_parameters` calls them.
        frozen: parameters that don't train.
        moving: buffers that training changes, as `named_buffers` calls them.
        output_shape: of one row's output.
    """

    layers: tuple[WeightLayer, ...]
    norms: tuple[BatchNorm, ...]
    dropouts: tuple[str, ...]
    others: tuple[str, ...]
    frozen: tuple[str, ...]
    moving: tuple[str, ...]
    output_shape: tuple[int, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know before the module is trained, a sentence each."""
        notes = [f"its own dropout {name!r} was replaced: keep_prob says what is kept" for name in self.dropouts]
        for layer in self.layers:
            if layer.runs > 1:
                notes.append(f"layer {layer.name!r} runs {layer.runs} times: one keep_prob and one lambda_ for all")
        if self.others:
            notes.append(f"{_listed(self.others)}: trained without keep_prob and lambda_, in no layer that has them")
        if self.frozen:
            notes.append(f"{_listed(self.frozen)}: frozen, and left as drawn")
        return tuple(notes)

    def check_task(self, task: Task, classes: int) -> None:
        """Refuse an output that is not what the task's loss takes.

        Args:
            task: what the output means.
            classes: how many there are for MULTICLASS.

        Raises:
            NetworkError: it is another shape than `B x C`, or C is wrong.
        """
        needed = f"at least {classes}" if task is Task.MULTICLASS else "1"
        outputs = self.output_shape[0] if len(self.output_shape) == 1 else 0
        if outputs < classes if task is Task.MULTICLASS else outputs != 1:
            found = " x ".join(["B", *map(str, self.output_shape)])
            raise NetworkError(
                f"the network makes {found} of B rows, but {task} needs B x C with C = {needed}: one number per "
                f"{'class (logits)' if task is Task.MULTICLASS else 'row'}. Change its last layer."
            )

    def check_batches(self, rows: Iterable[int], batch_size: int) -> None:
        """Refuse batches of a single row where batch normalisation needs two.

        Args:
            rows: training rows of each fold.
            batch_size: rows per step; the last batch of an epoch holds what is left.

        Raises:
            NetworkError: the last batch of a fold would hold one row.
        """
        alone = [norm.name for norm in self.norms if norm.values_per_row == 1]
        single = [count for count in rows if count % batch_size == 1 or batch_size == 1]
        if alone and single:
            raise NetworkError(
                f"{single[0]} training rows in batches of {batch_size} leave a batch of a single row, and batch "
                f"normalisation ({_listed(alone)}) has no variance to divide one row by. Choose another batch_size."
            )


def survey(module: nn.Module, example: Example, *, beside_others: bool = True) -> Survey:
    """Look at a module without changing it: it is copied, and the copy runs on a few rows.

    Args:
        module: as a user's function returned it, on the CPU.
        example: `B x ...`, a few real rows (B >= 2); a tuple for a forward that takes several tensors.
        beside_others: whether fits of it are to train in slots, padded batches and all; False looks for less.

    Raises:
        NetworkError: it can't be trained so, see `refusals`.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    refusals.unready(module, len(inputs), beside_others)
    twin = refusals.copied(module)
    without_dropout(twin)
    names = refusals.names_of(twin)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        with _watched(twin.eval()) as runs:
            output = refusals.ran(twin, inputs)
        refusals.grown(names, twin)
        layers, norms = _weight_layers(twin, runs), _batch_norms(twin, runs)
        if beside_others:
            refusals.unknown_norms(twin)
            refusals.ran(twin.eval(), tuple(each[:1] for each in inputs))
            refusals.restless(twin, inputs)
            refusals.entangled(twin, inputs, output)
        moving = _moving(twin, inputs, norms)
    weights = {id(twin.get_submodule(layer.name).weight) for layer in layers}
    parameters = list(twin.named_parameters())
    others = (name for name, each in parameters if each.requires_grad and each.ndim > 1 and id(each) not in weights)
    return Survey(
        layers=layers,
        norms=norms,
        dropouts=tuple(name for name, each in module.named_modules() if isinstance(each, _DropoutNd)),
        others=tuple(others),
        frozen=tuple(name for name, each in parameters if not each.requires_grad),
        moving=moving,
        output_shape=tuple(output.shape[1:]),
    )


def without_dropout(module: nn.Module) -> None:
    """Turn a module's own dropouts into the identity, where they stand."""
    for each in module.modules():
        if isinstance(each, _DropoutNd):
            each.__class__ = nn.Identity  # type: ignore[assignment]


def is_weight_layer(layer: nn.Module) -> bool:
    """Whether a layer is a linear layer or a convolution that computes as PyTorch's own does."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return any(isinstance(layer, kind) and type(layer).forward is kind.forward for kind in kinds)


Runs = dict[str, list[tuple[int, ...]]]


@contextmanager
def _watched(module: nn.Module) -> Iterator[Runs]:
    """Note whose turn it is: name -> the shape of its input at each run, in running order."""
    runs: Runs = {}

    def noting(name: str) -> Any:
        def note(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            runs.setdefault(name, []).append(tuple(arguments[0].shape))

        return note

    kept = [
        (name, each) for name, each in module.named_modules() if is_weight_layer(each) or isinstance(each, _BatchNorm)
    ]
    hooks = [each.register_forward_pre_hook(noting(name), prepend=True) for name, each in kept]
    try:
        yield runs
    finally:
        for hook in hooks:
            hook.remove()


def _weight_layers(module: nn.Module, runs: Runs) -> tuple[WeightLayer, ...]:
    found: list[WeightLayer] = []
    owners: dict[int, str] = {}
    for name, shapes in runs.items():
        layer = module.get_submodule(name)
        if is_weight_layer(layer):
            weight = refusals.own_weight(name, layer)
            if weight.requires_grad:
                refusals.tied(owners.setdefault(id(weight), name), name)
                kind: Literal["units", "channels"] = "units" if isinstance(layer, nn.Linear) else "channels"
                found.append(WeightLayer(name, weight.shape[0], kind, tuple(weight.shape), len(shapes)))
    if not found:
        raise NetworkError(
            "the network has no linear layer or convolution that runs and trains, so there is nothing to regularise. "
            "Give it at least one."
        )
    return tuple(found)


def _batch_norms(module: nn.Module, runs: Runs) -> tuple[BatchNorm, ...]:
    norms = {name: shapes for name, shapes in runs.items() if isinstance(module.get_submodule(name), _BatchNorm)}
    return tuple(BatchNorm(name, torch.Size(shapes[0][2:]).numel()) for name, shapes in norms.items())


def _moving(module: nn.Module, inputs: tuple[Tensor, ...], norms: tuple[BatchNorm, ...]) -> tuple[str, ...]:
    """The buffers that a pass in training mode replaces or writes to, whether or not their values change."""
    # batch normalisation writes without counting the version
    known = {f"{norm.name}.{own}".lstrip(".") for norm in norms for own in module.get_submodule(norm.name)._buffers}
    found = known | set(refusals.written(module.train(), inputs))
    return tuple(name for name, _ in module.named_buffers() if name in found)


def _listed(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
