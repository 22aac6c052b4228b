"""How much faster than the loop that people write today? Both sides on one machine, in turns.

    python tests/benchmarks/rival.py [--trials 60] [--our-trials 600] [--repeats 3]

The workload is that of studies/digits.yaml, its space `both`: a keep_prob per hidden layer and a lambda per weight
matrix, drawn at random. The sides:

rival    Optuna with its RDB storage on SQLite (default settings), a plain nn.Sequential with nn.Dropout,
         torch.optim.Adam(fused=True) with a weight_decay per layer, tensors in memory, no DataLoader, the validation
         rows scored after every epoch, the same patience, the test rows scored once at the end.
engine   sweeper's engine alone, refilled as fits end: no suggestions, no ledger, no export.
sweeper  `sweeper run` from beginning to end, as a user starts it, interpreter and imports included.

Rival and engine run in --processes processes of one thread each; starting and compiling there isn't counted. The
engine also scores the training rows after every epoch, which the rival does not. Turns alternate, so that a slow
moment of the machine meets all sides; the ratio is the median over the repeats of ratios within one repeat.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import yaml
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweeper.engine import Engine, can_compile
from sweeper.networks import mlp
from sweeper.records import Fit, Fold, Setting, Task, Training

ROOT = Path(__file__).parents[2]
STUDY = yaml.safe_load((ROOT / "studies" / "digits.yaml").read_text())
TRAIN, RANGES = STUDY["train"], STUDY["ranges"]
SIZES = (64, *STUDY["model"]["hidden"], 10)
LAYERS = len(SIZES) - 1
REPLICATES = STUDY["search"]["replicates"]


@dataclass(frozen=True)
class Options:
    processes: int
    slots: int
    compiled: bool


@dataclass(frozen=True)
class Turn:
    """What one side did in one turn; epochs and losses are there to show that the sides do the same work."""

    trials: int
    seconds: float
    epochs: float = float("nan")
    validation_loss: float = float("nan")

    @property
    def rate(self) -> float:
        return self.trials / self.seconds


Trained = list[tuple[int, float]]  # epochs and best validation loss of each trial


@cache
def digits() -> Fold:
    x, y = load_digits(return_X_y=True)
    x_train, x_rest, y_train, y_rest = train_test_split(
        x, y, train_size=STUDY["data"]["train"], stratify=y, random_state=0
    )
    x_validation, x_test, y_validation, y_test = train_test_split(
        x_rest, y_rest, train_size=STUDY["data"]["validation"], stratify=y_rest, random_state=0
    )
    mean, scale = x_train.mean(0), x_train.std(0) + (x_train.std(0) == 0)
    rows = [((part - mean) / scale).astype(np.float32) for part in (x_train, x_validation, x_test)]
    return Fold(rows[0], y_train, rows[1], y_validation, rows[2], y_test)


# The rival: written as a good tutorial would.


def tensors() -> dict[str, Tensor]:
    fold = digits()
    names = [f"{axis}_{part}" for axis in "xy" for part in ("train", "validation", "test")]
    return {name: torch.from_numpy(getattr(fold, name)) for name in names}


def network(keep_prob: list[float]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for (wide, narrow), keep in zip(pairwise(SIZES), [*keep_prob, None], strict=True):
        layers.append(nn.Linear(wide, narrow))
        if keep is not None:
            layers += [nn.ReLU(), nn.Dropout(1 - keep)]
    return nn.Sequential(*layers)


def adam(net: nn.Sequential, lambda_: list[float], rows: int) -> torch.optim.Adam:
    linears = [layer for layer in net if isinstance(layer, nn.Linear)]
    groups: list[dict[str, Any]] = [
        {"params": [layer.weight], "weight_decay": one / rows} for layer, one in zip(linears, lambda_, strict=True)
    ]
    biases = {"params": [layer.bias for layer in linears]}
    return torch.optim.Adam([*groups, biases], lr=TRAIN["learning_rate"], fused=True)


def objective(trial: optuna.Trial, data: dict[str, Tensor], done: Trained) -> float:
    keep_prob = [trial.suggest_float(f"keep_prob_{layer}", *RANGES["keep_prob"]) for layer in range(1, LAYERS)]
    lambda_ = [trial.suggest_float(f"lambda_{layer}", *RANGES["lambda"], log=True) for layer in range(1, LAYERS + 1)]
    torch.manual_seed(trial.number)
    net = network(keep_prob)
    x, y = data["x_train"], data["y_train"]
    optimizer = adam(net, lambda_, len(y))
    best, best_state, stale, epochs = float("inf"), net.state_dict(), 0, 0
    while epochs < TRAIN["epochs"] and stale < TRAIN["patience"]:
        epochs += 1
        net.train()
        for batch in torch.randperm(len(y)).split(TRAIN["batch_size"]):
            optimizer.zero_grad()
            cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            loss = cross_entropy(net(data["x_validation"]), data["y_validation"]).item()
        if loss < best:
            best, best_state, stale = loss, copy.deepcopy(net.state_dict()), 0
        else:
            stale += 1
    net.load_state_dict(best_state)
    net.eval()
    with torch.no_grad():
        trial.set_user_attr("test_loss", cross_entropy(net(data["x_test"]), data["y_test"]).item())
    done.append((epochs, best))
    return best


def search(url: str, trials: int, seed: int) -> Trained:
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.load_study(study_name="rival", storage=url, sampler=sampler)
    done: Trained = []
    study.optimize(partial(objective, data=tensors(), done=done), n_trials=trials)
    return done


def rival(options: Options, trials: int, seed: int) -> Turn:
    with tempfile.TemporaryDirectory() as folder, started(options, warm_rival) as pool:
        url = f"sqlite:///{folder}/rival.db"
        optuna.create_study(study_name="rival", storage=url)
        jobs = [partial(search, url, share, seed + job) for job, share in shares(trials, options.processes)]
        return timed(pool, jobs)


def warm_rival() -> None:
    optuna.create_study().optimize(partial(objective, data=tensors(), done=[]), n_trials=1)


# The engine alone.


@cache
def engine_of(slots: int, compiled: bool) -> Engine:
    training = Training(
        epochs=TRAIN["epochs"],
        batch_size=TRAIN["batch_size"],
        learning_rate=TRAIN["learning_rate"],
        patience=TRAIN["patience"],
    )
    build = partial(mlp, SIZES[0], SIZES[1:-1], SIZES[-1])
    return Engine(build, [digits()], training, Task.MULTICLASS, slots=slots, compiled=compiled)


def drawn(rng: np.random.Generator, number: int) -> Fit:
    keep_prob = rng.uniform(*RANGES["keep_prob"], LAYERS - 1)
    low, high = np.log(RANGES["lambda"])
    lambda_ = np.exp(rng.uniform(low, high, LAYERS))
    setting = Setting((RANGES["input_keep_prob"], *keep_prob.tolist()), tuple(lambda_.tolist()))
    return Fit(str(number), setting, int(rng.integers(2**62)), 0)


def train(slots: int, compiled: bool, trials: int, seed: int) -> Trained:
    engine, rng = engine_of(slots, compiled), np.random.default_rng(seed)
    done: Trained = []
    waiting = [drawn(rng, number) for number in range(trials)]
    while len(done) < trials:
        now, waiting = waiting[: engine.free], waiting[engine.free :]
        engine.admit(now)
        done += [(len(result.scores), result.validation_loss) for result in engine.train().results]
    return done


def engine_alone(options: Options, trials: int, seed: int) -> Turn:
    own = partial(train, options.slots, options.compiled)
    with started(options, partial(own, 1, seed)) as pool:
        return timed(pool, [partial(own, share, seed + job) for job, share in shares(trials, options.processes)])


# The whole product.


def sweeper_run(options: Options, trials: int, seed: int) -> Turn:
    """`sweeper run` in a home of its own, MLflow delivery beside it; what it did is asked of the ledger."""
    del options
    concurrency = len(STUDY["spaces"])  # one space fills as many slots as the whole sweep does
    search = STUDY["search"] | {"trials": max(1, trials // REPLICATES), "concurrency": concurrency}
    sweep = STUDY | {"name": "rival", "seed": seed, "search": search, "spaces": {"both": STUDY["spaces"]["both"]}}
    with tempfile.TemporaryDirectory() as folder:
        file, home = Path(folder) / "rival.yaml", str(Path(folder) / "home")
        file.write_text(yaml.safe_dump(sweep))
        start = time.perf_counter()
        sweeper("run", str(file), "--home", home)
        seconds = time.perf_counter() - start
        status = json.loads(sweeper("status", "rival", "--home", home, "--json"))
        done = json.loads(sweeper("trials", "rival", "--home", home, "--json"))
    losses = statistics.median(trial["validation_loss"] for trial in done)
    finished = status["trials"]["finished"]
    return Turn(finished, seconds, status["cost"]["epochs"] / finished, losses)


def sweeper(*arguments: str) -> str:
    command = [sys.executable, "-m", "sweeper", *arguments]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"sweeper {' '.join(arguments)} ended with {run.returncode}:\n{run.stderr}")
    return run.stdout


# Running and showing.


def shares(trials: int, processes: int) -> list[tuple[int, int]]:
    """Trials of each process."""
    return [(job, trials // processes + (job < trials % processes)) for job in range(processes)]


@contextmanager
def started(options: Options, warm_up: Callable[[], object]) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each that have imported, compiled and trained once."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(options.processes)
    with ProcessPoolExecutor(options.processes, context, prepare, (warm_up, together)) as pool:
        list(pool.map(abs, range(options.processes)))  # answered once all of them are ready
        yield pool


def prepare(warm_up: Callable[[], object], together: Any) -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warm_up()
    together.wait(timeout=300)


def timed(pool: ProcessPoolExecutor, jobs: Sequence[Callable[[], Trained]]) -> Turn:
    start = time.perf_counter()
    trained = [one for future in [pool.submit(job) for job in jobs] for one in future.result()]
    seconds = time.perf_counter() - start
    epochs, losses = zip(*trained, strict=True)
    return Turn(len(trained), seconds, statistics.mean(epochs), statistics.median(losses))


def machine() -> str:
    info = Path("/proc/cpuinfo")
    names = {line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")}
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, optuna {optuna.__version__}"
    name = ", ".join(names) or platform.processor()
    return f"{datetime.date.today()}, {os.cpu_count()} cores of {name}; {versions}"


def row(name: str, turn: Turn, ratio: float) -> str:
    return (
        f"{name:<8} {turn.trials:>6} {turn.seconds:>8.1f} {turn.rate:>9.2f} {ratio:>6.1f}"
        f" {turn.epochs:>13.1f} {turn.validation_loss:>12.4f}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60, help="trials per turn of the rival")
    parser.add_argument("--our-trials", type=int, default=600, help="trials per turn of the engine and of sweeper")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--processes", type=int, default=2, help="processes of the rival and of the engine")
    parser.add_argument("--slots", type=int, default=32, help="slots of each engine")
    parser.add_argument("--eager", action="store_true", help="don't compile the engine's step")
    parser.add_argument("--sides", nargs="+", default=["rival", "engine", "sweeper"], choices=SIDES)
    return parser.parse_args()


SIDES = {"rival": rival, "engine": engine_alone, "sweeper": sweeper_run}


def main() -> None:
    args = arguments()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = Options(args.processes, args.slots, compiled=not args.eager and can_compile("cpu"))
    sides = [side for side in args.sides if side != "sweeper" or importlib.util.find_spec("sweeper.__main__")]
    print(f"{machine()}\ncompiled: {options.compiled}; slots per engine: {options.slots}\n")
    print("side     trials  seconds  trials/s  ratio  epochs/trial  median loss", flush=True)
    ratios: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(args.repeats):
        turns: dict[str, Turn] = {}
        for side in sides:
            trials = args.trials if side == "rival" else args.our_trials
            turns[side] = SIDES[side](options, trials, 1000 * repeat)
            ratios[side].append(turns[side].rate / turns[sides[0]].rate)
            print(row(side, turns[side], ratios[side][-1]), flush=True)
    print()
    for side in sides[1:]:
        print(f"{side}: {statistics.median(ratios[side]):.1f} times the trials per second of {sides[0]}")


if __name__ == "__main__":
    main()
