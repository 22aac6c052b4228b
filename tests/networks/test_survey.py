"""What a module consists of is found by running it; what can't be trained in slots is refused in words."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sweeper.errors import EngineError, NetworkError
from sweeper.networks import mlp, survey
from sweeper.records import Task

ROWS = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


class Module(nn.Module):
    """Some parts, and what they make of rows."""

    def __init__(self, run: Callable[[Module, Tensor], Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, rows: Tensor) -> Tensor:
        return self.run(self, rows)


class Backwards(nn.Module):
    """Declared in another order than it runs, partly nested, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 3)
        self.inner = nn.ModuleDict({"second": nn.Conv1d(4, 4, 3, padding=1), "norm": nn.BatchNorm1d(4)})
        self.drop = nn.Dropout(0.3)
        self.first = nn.Conv2d(1, 4, (1, 3), padding=(0, 1))

    def forward(self, rows: Tensor) -> Tensor:
        maps = torch.relu(self.first(rows.view(-1, 1, 1, 8))).squeeze(2)
        maps = maps + self.inner["norm"](self.inner["second"](self.drop(maps)))
        return self.last(maps.mean(1))


def names(module: nn.Module) -> list[str]:
    return [layer.name for layer in survey(module, ROWS).layers]


def test_layers_are_numbered_in_the_order_in_which_they_run() -> None:
    found = survey(Backwards(), ROWS)
    assert [(layer.name, layer.outputs, layer.kind) for layer in found.layers] == [
        ("first", 4, "channels"),
        ("inner.second", 4, "channels"),
        ("last", 3, "units"),
    ]
    assert [layer.shape for layer in found.layers] == [(4, 1, 1, 3), (4, 4, 3), (3, 8)]
    assert found.output_shape == (3,)


def test_a_perceptrons_layers_are_those_of_its_sequence() -> None:
    assert names(mlp(8, (7, 7, 3), 1)) == ["0", "2", "4", "6"]
    assert names(nn.Linear(8, 2)) == [""]


def test_the_module_is_left_as_it_was() -> None:
    module = Backwards()
    before, kinds = copy.deepcopy(module.state_dict()), [type(each) for each in module.modules()]
    module.train()
    state = torch.get_rng_state()
    survey(module, ROWS)
    assert module.training
    assert torch.equal(torch.get_rng_state(), state)
    assert [type(each) for each in module.modules()] == kinds
    assert all(not each._forward_pre_hooks for each in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_its_own_dropouts_and_moving_statistics_are_named() -> None:
    found = survey(Backwards(), ROWS)
    assert found.dropouts == ("drop",)
    assert found.notes == ("its own dropout 'drop' was replaced: keep_prob says what is kept",)
    assert [(norm.name, norm.values_per_row) for norm in found.norms] == [("inner.norm", 8)]
    moving = {f"inner.norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert set(found.moving) == moving


def test_a_layer_that_runs_twice_is_one_layer() -> None:
    shared = nn.Linear(8, 8)
    called_twice = Module(lambda m, x: m.out(m.a(m.a(x))), a=shared, out=nn.Linear(8, 3))
    named_twice = Module(lambda m, x: m.out(m.b(m.a(x))), a=shared, b=shared, out=nn.Linear(8, 3))
    for module in (called_twice, named_twice):
        found = survey(module, ROWS)
        assert [(layer.name, layer.runs) for layer in found.layers] == [("a", 2), ("out", 1)]
        assert found.notes == ("layer 'a' runs 2 times: one keep_prob and one lambda_ for all",)


def test_matrices_that_no_weight_layer_has_are_told() -> None:
    attention = Module(
        lambda m, x: m.out(m.attend(*[x.view(-1, 4, 2)] * 3, need_weights=False)[0].flatten(1)),
        attend=nn.MultiheadAttention(2, 1, batch_first=True),
        out=nn.Linear(8, 3),
    )
    found = survey(attention, ROWS)
    assert [layer.name for layer in found.layers] == ["out"]
    assert found.others == ("attend.in_proj_weight", "attend.out_proj.weight")
    (note,) = found.notes
    assert note.startswith("attend.in_proj_weight, attend.out_proj.weight: trained without keep_prob and lambda_")


def test_a_layer_that_never_runs_is_no_weight_layer() -> None:
    found = survey(Module(lambda m, x: m.a(x), a=nn.Linear(8, 3), spare=nn.Linear(8, 4)), ROWS)
    assert [layer.name for layer in found.layers] == ["a"]
    assert found.others == ("spare.weight",)


def test_a_frozen_layer_is_no_weight_layer() -> None:
    found = survey(nn.Sequential(nn.Linear(8, 5).requires_grad_(False), nn.Linear(5, 3)), ROWS)
    assert [layer.name for layer in found.layers] == ["1"]
    assert found.frozen == ("0.weight", "0.bias")
    assert found.notes == ("0.weight, 0.bias: frozen, and left as drawn",)


def test_a_layer_with_arithmetic_of_its_own_is_no_weight_layer() -> None:
    class Absolute(nn.Linear):
        def forward(self, rows: Tensor) -> Tensor:
            return functional.linear(rows, self.weight.abs(), self.bias)

    class Renamed(nn.Linear):
        pass

    found = survey(nn.Sequential(Absolute(8, 8), Renamed(8, 3)), ROWS)
    assert [layer.name for layer in found.layers] == ["1"]
    assert found.others == ("0.weight",)


def test_several_inputs_are_possible_where_they_are_given() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(8, 3), nn.Linear(2, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.right(b) + self.left(a)

    assert [layer.name for layer in survey(Pair(), (ROWS, ROWS[:, :2])).layers] == ["right", "left"]
    with pytest.raises(NetworkError, match=r"forward takes 2 inputs \(a, b\), but gets 1\. Write one forward\(rows\)"):
        survey(Pair(), ROWS)


# what is refused ------------------------------------------------------------------------------------------------------


def tied() -> nn.Module:
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    module[1].weight = module[0].weight
    return module


def linear_after(run: Callable[[Module, Tensor], Tensor], **parts: nn.Module | Tensor) -> nn.Module:
    return Module(lambda m, x: m.last(run(m, x)), last=nn.Linear(8, 3), **parts)


def counted(m: Module, x: Tensor) -> Tensor:
    m.calls = getattr(m, "calls", 0) + 1
    return x * m.calls


def registered(m: Module, x: Tensor) -> Tensor:
    m.register_buffer("scale", x.std())
    return x


def sequence(cell: nn.Module) -> nn.Module:
    return Module(lambda m, x: m.last(m.cell(x.view(-1, 4, 2))[0][:, -1]), cell=cell, last=nn.Linear(5, 3))


REFUSED = {
    "no module": (lambda: "mlp", "must be a torch.nn.Module, but this is a str"),
    "nothing to regularise": (lambda: nn.Sequential(nn.ReLU()), "no linear layer or convolution that runs and trains"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 3)), r"'0.weight' is lazy.*instead of nn.LazyLinear"),
    "double": (lambda: nn.Linear(8, 3).double(), r"'weight' is torch.float64.*Call \.float\(\)"),
    "tied weights": (tied, r"layers '0' and '1' have one weight.*Call one layer twice"),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))),
        r"weight of layer '0' is computed from other parameters.*Take that off",
    ),
    "spectral norm": (
        lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 3))),
        "weight of layer '0' is computed from other parameters",
    ),
    "functional dropout": (
        lambda: linear_after(lambda m, x: functional.dropout(x, training=m.training)),
        "draws random numbers of its own in training mode.*Leave functional dropout and noise out",
    ),
    "noise in evaluation": (
        lambda: linear_after(lambda _, x: x + torch.randn_like(x)),
        "draws random numbers of its own in evaluation mode",
    ),
    "dropout inside an LSTM": (
        lambda: sequence(nn.LSTM(2, 5, 2, batch_first=True, dropout=0.3)),
        r"Pass dropout=0\.0 to LSTM 'cell'",
    ),
    "random slopes": (lambda: nn.Sequential(nn.Linear(8, 3), nn.RReLU()), r"Replace nn.RReLU '1' by nn.LeakyReLU"),
    "memory": (lambda: linear_after(counted), "other numbers of the same rows the second time in evaluation mode"),
    "mean of the batch": (
        lambda: linear_after(lambda _, x: x - x.mean(0)),
        r"in evaluation mode a row's output changes with the other rows.*nn.BatchNorm1d or 2d",
    ),
    "batch norm by hand": (
        lambda: linear_after(
            lambda m, x: functional.batch_norm(x, m.m, m.v, training=m.training), m=ROWS[0], v=ROWS[1]
        ),
        "in training mode a row's output changes with the other rows",
    ),
    "batch norm without statistics": (
        lambda: linear_after(lambda m, x: m.norm(x), norm=nn.BatchNorm1d(8, track_running_stats=False)),
        "'norm' keeps no running statistics.*Leave track_running_stats at True",
    ),
    "instance statistics": (
        lambda: linear_after(
            lambda m, x: m.norm(x[:, None])[:, 0], norm=nn.InstanceNorm1d(1, affine=True, track_running_stats=True)
        ),
        "'norm' keeps running statistics of instances",
    ),
    "counting evaluations": (
        lambda: linear_after(lambda m, x: x + 0 * m.seen.add_(1), seen=torch.zeros(())),
        "changes seen in evaluation mode.*Change it only where self.training",
    ),
    "two outputs": (lambda: Module(lambda m, x: (m.a(x), x), a=nn.Linear(8, 3)), "returns a tuple.*logits"),
    "one number": (lambda: Module(lambda m, x: m.a(x).sum(), a=nn.Linear(8, 3)), "no row has an output of its own"),
    "other size": (
        lambda: nn.Linear(9, 3),
        "fails on a batch of 6 x 8 in evaluation mode: RuntimeError: mat1 and mat2",
    ),
    "one row alone": (
        lambda: Module(lambda m, x: m.a(x.squeeze()), a=nn.Linear(8, 3)),
        "of 1 rows the network makes a .3,., so that no row has an output of its own",
    ),
    "late buffer": (
        lambda: linear_after(registered),
        r"scale came or went.*Register parameters and buffers in __init__",
    ),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`", "ignore:.*spectral_norm:FutureWarning")
@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_module_is_refused_with_the_reason_and_what_to_do(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        survey(build(), ROWS)


def test_a_refusal_is_an_engine_error() -> None:
    assert issubclass(NetworkError, EngineError)


def test_for_a_loop_of_ones_own_less_is_asked() -> None:
    mixing = nn.Sequential(nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 8).double().float(), nn.RReLU())
    with pytest.raises(NetworkError):
        survey(mixing, ROWS)
    assert [layer.name for layer in survey(mixing, ROWS, beside_others=False).layers] == ["1"]


OUTPUTS = [
    (Task.MULTICLASS, 3, 3, None),
    (Task.MULTICLASS, 4, 3, None),  # a class may have no row in these folds
    (Task.MULTICLASS, 2, 3, r"B x 2 of B rows, but multiclass needs B x C with C = at least 3"),
    (Task.BINARY, 1, 1, None),
    (Task.BINARY, 2, 1, r"B x 2 of B rows, but binary needs B x C with C = 1: one number per row"),
    (Task.REGRESSION, 2, 1, r"regression needs B x C with C = 1"),
]


@pytest.mark.parametrize(("task", "outputs", "classes", "message"), OUTPUTS)
def test_an_output_must_be_what_the_loss_takes(task: Task, outputs: int, classes: int, message: str | None) -> None:
    found = survey(nn.Linear(8, outputs), ROWS)
    if message is None:
        found.check_task(task, classes)
    else:
        with pytest.raises(NetworkError, match=message):
            found.check_task(task, classes)


@pytest.mark.parametrize("task", Task)
def test_an_output_of_another_rank_is_refused(task: Task) -> None:
    flat = Module(lambda m, x: m.a(x)[:, 0], a=nn.Linear(8, 1))
    maps = nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 3, 3))
    for module in (flat, maps):
        with pytest.raises(NetworkError, match=r"Change its last layer"):
            survey(module, ROWS).check_task(task, 3 if task is Task.MULTICLASS else 1)


def test_a_batch_of_one_row_is_refused_where_its_variance_would_be_needed() -> None:
    rows = survey(nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), ROWS)
    maps = survey(Backwards(), ROWS)  # eight values per channel and row
    rows.check_batches([64, 98], 32)
    for norms, batch_size in ((97, 32), (4, 1)):
        with pytest.raises(NetworkError, match=r"leave a batch of a single row.*\(1\).*Choose another batch_size"):
            rows.check_batches([64, norms], batch_size)
        maps.check_batches([64, norms], batch_size)
