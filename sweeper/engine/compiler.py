"""Turns a function of tensors into one piece of machine code.

The function is traced once, with its derivatives and its slots written out (make_fx), and the trace goes straight to
Inductor: a call then costs the kernels and little else, where torch.compile checks on every call that nothing about
its arguments changed (measured for a step of 2 slots: 169 us, against 96). Nothing does change: shapes are static, and
a new fit only changes numbers. On a CPU the trace's masks and small products become our own (`native.cpp`).
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from sweeper.engine.dropout import kept_elements
from sweeper.engine.native import cpp_compiler, load_native
from sweeper.errors import EngineError

# Multiplications of one product below which our own code is quicker than oneDNN's, which reads big matrices by blocks.
SMALL = 1 << 21

Bound = Callable[[], Any]
"""A function with its arguments: whatever they hold at the time of the call is what it works on."""


def can_compile(device: str) -> bool:
    """Whether machine code can be made here: needs a C++ compiler and Python's headers, or Triton."""
    if torch.device(device).type == "cuda":
        return torch.utils._triton.has_triton()
    headers = Path(sysconfig.get_path("include"), "Python.h")  # Inductor's code is called from Python
    return headers.exists() and cpp_compiler() is not None


class Eager:
    """A function as it is, operation by operation."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def bind(self, *arguments: Any) -> Bound:
        """The function with its arguments."""
        return lambda: self._function(*arguments)


class Compiled:
    """A function of nested tensors, compiled at its first binding for the shapes of those arguments.

    It may change its arguments in place, and returns nothing or nested tensors.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._codes: dict[tuple[Any, ...], tuple[Callable[..., Any], Any]] = {}

    def bind(self, *arguments: Any) -> Bound:
        """The compiled function with its arguments, ready to be called again and again.

        Raises:
            EngineError: the function can't be compiled here.
        """
        flat, spec = pytree.tree_flatten(arguments)
        kind = tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in flat)
        if kind not in self._codes:
            self._codes[kind] = _compile(self._function, flat, spec)
        code, returned = self._codes[kind]
        return lambda: pytree.tree_unflatten(code(*flat), returned)


def _compile(function: Callable[..., Any], flat: list[Tensor], spec: Any) -> tuple[Callable[..., Any], Any]:
    returned: Any = None

    def on_flat(*tensors: Tensor) -> list[Tensor]:
        nonlocal returned
        result, returned = pytree.tree_flatten(function(*pytree.tree_unflatten(list(tensors), spec)))
        return result

    native = flat[0].device.type == "cpu"
    fake = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)  # Inductor caches nothing without a ShapeEnv
    shapes = [fake.from_tensor(tensor, static_shapes=True) for tensor in flat]
    with compile_errors(), torch.no_grad(), tracing(TracingContext(fake)):
        with fake:
            graph = make_fx(on_flat, decomposition_table={} if native else WRITTEN_OUT)(*shapes)
        if native:
            _use_native(graph)
        code = torch._inductor.compile(graph, list(flat))
    return code, returned


def captured(bound: Bound, device: torch.device) -> Bound:
    """A GPU's work recorded once, to be replayed without the host: a CUDA graph over the memory that it was bound to.

    Runs the work once before, so that libraries set themselves up; its tensors must stand that.
    """
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        bound()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        bound()
    return graph.replay


WRITTEN_OUT = {torch.ops.sweeper.masks.default: kept_elements}


def _use_native(graph: fx.GraphModule) -> None:
    """Put `native.cpp` in the place of the trace's masks and of its small float32 products."""
    load_native()
    for node in graph.graph.nodes:
        if node.target is torch.ops.sweeper.masks.default:
            node.target = torch.ops.sweeper_cpu.masks.default
        if node.target is torch.ops.aten.bmm.default and _is_small(node):
            node.target = torch.ops.sweeper_cpu.products.default
    graph.recompile()


def _is_small(product: fx.Node) -> bool:
    """By one slot's shape alone, so that the number of slots decides nothing."""
    left, out = product.args[0].meta["val"], product.meta["val"]  # type: ignore[union-attr]
    return out.dtype is torch.float32 and out.shape[1] * out.shape[2] * left.shape[2] <= SMALL


@contextmanager
def compile_errors() -> Iterator[None]:
    """Turn whatever a compiler fails with into an EngineError that says so in one line; the caller can go on eager."""
    try:
        yield
    except (EngineError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # compilers have no common one
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EngineError(f"the training step can't be compiled here: {reason} Pass --compile off.") from error
