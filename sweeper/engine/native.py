"""Builds and loads `native.cpp`, the products and masks of compiled code on a CPU.

It is compiled once per machine and version, for the very processor, and kept in the user's cache folder, which nobody
else may write to: what is loaded from there runs in this process.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch.utils import cpp_extension

from sweeper.errors import EngineError

SOURCE = Path(__file__).with_name("native.cpp")
# No -ffast-math: a NaN has to stay one. Multiply and add become one operation, in a fixed order.
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++20", "-fPIC", "-shared", "-fopenmp")
BUILD_S = 300


def cpp_compiler() -> str | None:
    """The C++ compiler's command that PyTorch's own compiler would use: CXX, or the first one that is there."""
    wanted = os.environ.get("CXX")
    return next(
        (name for name in (wanted, "g++", "clang++", "c++") if name and shutil.which(shlex.split(name)[0])), None
    )


@cache
def load_native() -> None:
    """Make `torch.ops.sweeper_cpu` available.

    Raises:
        EngineError: it can't be built or loaded here; says why.
    """
    library = _folder() / f"native-{_fingerprint()}.so"
    try:
        if not library.exists():
            _build(library)
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise EngineError(f"the CPU's kernels can't be compiled here: {said[0] if said else error}") from error


def _build(library: Path) -> None:
    """Compile beside the library's place and move it there, so that no other process ever finds half a file."""
    compiler = cpp_compiler()
    if compiler is None:
        raise FileNotFoundError("no C++ compiler was found. Install g++ or clang.")
    includes = [part for path in cpp_extension.include_paths() for part in ("-isystem", path)]
    links = [*(f"-L{path}" for path in cpp_extension.library_paths()), "-ltorch_cpu", "-lc10"]
    handle, draft = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    try:
        command = [*shlex.split(compiler), *FLAGS, *includes, str(SOURCE), "-o", draft, *links]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_S)
        Path(draft).replace(library)
    finally:
        Path(draft).unlink(missing_ok=True)


def _folder() -> Path:
    """The user's own cache folder; a fresh one where there is no home to write to."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "sweeper"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="sweeper-"))


def _fingerprint() -> str:
    """What the library depends on: the source, the flags, PyTorch, the compiler and the processor."""
    parts = (
        SOURCE.read_bytes(),
        repr(FLAGS).encode(),
        torch.__version__.encode(),
        str(cpp_compiler()).encode(),
        _cpu(),
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cpu() -> bytes:
    """The processor's features, which -march=native asks for; a home may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return b""
    return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))
