"""The energy meter: what the counters say, to the count; and in words where there is none that can be read."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from engine.workloads import ADAM, build, fit, fold, run_alone
from sweeper.engine import Engine, Tick, energy
from sweeper.engine.energy import Counter, EnergyMeter, energy_note, find_meter
from sweeper.records import Cost, Task

RANGE = 262_143_328_850  # microjoules, as processors have it


@dataclass
class Sysfs:
    """A tree as the kernel shows it: zones by name, their counters moving while somebody sleeps."""

    root: Path
    zones: list[Path] = field(default_factory=list)
    running: bool = True

    def add(self, zone: str, name: str, count: int = 5_000_000) -> Path:
        folder = self.root / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
        self.set(folder, count)
        self.zones.append(folder)
        return folder

    def set(self, folder: Path, count: int) -> None:
        (folder / "energy_uj").write_text(f"{count % RANGE}\n")

    def gain(self, folder: Path, count: int) -> None:
        self.set(folder, int((folder / "energy_uj").read_text()) + count)

    def sleep(self, _seconds: float) -> None:
        if self.running:
            for folder in self.zones:
                self.gain(folder, 1_000)


@pytest.fixture(autouse=True)
def forgetful() -> None:
    """What one test found is not what the next one finds."""
    energy._find.cache_clear()


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sysfs:
    tree = Sysfs(tmp_path / "powercap")
    monkeypatch.setattr(energy, "POWERCAP", tree.root)
    monkeypatch.setattr(energy.time, "sleep", tree.sleep)
    return tree


def meter_of(device: str) -> EnergyMeter:
    meter = find_meter(device)
    assert meter is not None, energy_note(device)
    return meter


# a CPU ----------------------------------------------------------------------------------------------------------------


def test_a_package_is_measured_from_the_meters_start_on(sysfs: Sysfs):
    package = sysfs.add("intel-rapl:0", "package-0", 7_000_000)
    meter = meter_of("cpu")
    assert meter.read() == 0.0
    sysfs.gain(package, 2_500_000)
    assert meter.read() == 2.5
    assert meter.read() == 2.5
    sysfs.gain(package, 1)
    assert meter.read() == pytest.approx(2.500001, abs=1e-12)


def test_a_counter_that_starts_over_goes_on_in_the_meter(sysfs: Sysfs):
    package = sysfs.add("intel-rapl:0", "package-0", RANGE - 1_000_000)
    meter = meter_of("cpu")
    read = []
    for _ in range(9):  # twice round, in steps of a quarter
        sysfs.gain(package, RANGE // 4)
        read.append(meter.read())
    assert read == pytest.approx([(RANGE // 4) * 1e-6 * step for step in range(1, 10)], abs=1e-4)


def test_all_sockets_count_and_nothing_counts_twice(sysfs: Sysfs):
    """Cores and memory are inside the packages, psys is around them, and the mmio zone is the package again."""
    sockets = [sysfs.add("intel-rapl:0", "package-0"), sysfs.add("intel-rapl:1", "package-1", RANGE - 10)]
    others = {
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    rest = [sysfs.add(zone, name) for zone, name in others.items()]
    meter = meter_of("cpu")
    for folder in rest:
        sysfs.gain(folder, 50_000_000)
    sysfs.gain(sockets[0], 3_000_000)
    sysfs.gain(sockets[1], 4_000_000)
    assert meter.read() == pytest.approx(7.0, abs=1e-9)
    assert energy_note("cpu") == "measured by RAPL, 2 CPU packages with all that ran there"


def test_dies_of_one_package_are_added_up(sysfs: Sysfs):
    dies = [sysfs.add(f"intel-rapl:{die}", f"package-0-die-{die}") for die in range(2)]
    meter = meter_of("cpu")
    for folder in dies:
        sysfs.gain(folder, 1_000_000)
    assert meter.read() == 2.0


def test_a_machine_without_counters_measures_nothing_and_says_so(sysfs: Sysfs):
    assert find_meter("cpu") is None
    note = energy_note("cpu")
    assert note.startswith("not measured: this machine shows no RAPL counters")
    assert str(sysfs.root) in note


def deny(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Files of that name are closed to us, also where the tests run as root."""
    read = Path.read_text

    def read_text(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)


def test_a_counter_for_root_alone_is_not_measured_and_the_way_out_is_named(
    sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch
):
    package = sysfs.add("intel-rapl:0", "package-0")
    deny(monkeypatch, "energy_uj")
    assert find_meter("cpu") is None
    note = energy_note("cpu")
    assert note.startswith(f"not measured: {package}/energy_uj is readable by root only")
    assert "sudo chmod a+r" in note


def test_one_closed_socket_leaves_all_unmeasured(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch):
    sysfs.add("intel-rapl:0", "package-0")
    sysfs.add("intel-rapl:1", "package-1")
    read = Path.read_text

    def read_text(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.parent.name == "intel-rapl:1" and path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    assert find_meter("cpu") is None


def test_a_counter_that_is_no_number_is_not_measured(sysfs: Sysfs):
    (sysfs.add("intel-rapl:0", "package-0") / "energy_uj").write_text("\n")
    assert find_meter("cpu") is None
    assert "can't be read" in energy_note("cpu")


def test_a_counter_that_stands_still_is_not_taken_for_zero(sysfs: Sysfs):
    sysfs.add("intel-rapl:0", "package-0")
    sysfs.running = False
    assert find_meter("cpu") is None
    assert "stands still" in energy_note("cpu")


def test_a_reading_that_fails_is_not_a_number_and_the_next_one_makes_up_for_it(
    sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch
):
    package = sysfs.add("intel-rapl:0", "package-0")
    meter = meter_of("cpu")
    sysfs.gain(package, 1_000_000)
    with monkeypatch.context() as closed:
        deny(closed, "energy_uj")
        assert meter.read() != meter.read()
    sysfs.gain(package, 1_000_000)
    assert meter.read() == 2.0


def test_a_counter_that_fails_after_it_was_found_is_no_error(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch):
    sysfs.add("intel-rapl:0", "package-0")
    meter_of("cpu")
    deny(monkeypatch, "energy_uj")
    assert find_meter("cpu") is None


# a GPU ----------------------------------------------------------------------------------------------------------------

UUID = "8f3a1c52-0000-1111-2222-333344445555"


class NVMLError(Exception):
    """As pynvml's."""


@dataclass
class Board:
    """What the fake NVML answers for one GPU."""

    millijoules: int = 9_000_000_123
    fails: bool = False
    asked: list[str] = field(default_factory=list)

    def by_uuid(self, uuid: str) -> Board:
        self.asked.append(uuid)
        if uuid != f"GPU-{UUID}":
            raise NVMLError("Not Found")
        return self

    def energy(self, handle: Board) -> int:
        assert handle is self
        if self.fails:
            raise NVMLError("Unknown Error")
        return self.millijoules

    def sleep(self, _seconds: float) -> None:
        self.millijoules += 700


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """A machine with one GPU, in the names that this module and PyTorch give it."""
    one, pynvml = Board(), ModuleType("pynvml")
    names: dict[str, Any] = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": one.by_uuid,
        "nvmlDeviceGetTotalEnergyConsumption": one.energy,
    }
    for name, value in names.items():
        setattr(pynvml, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=UUID))
    monkeypatch.setattr(energy.time, "sleep", one.sleep)
    return one


def test_a_gpu_is_measured_in_joules_and_found_by_its_uuid(board: Board):
    meter = meter_of("cuda:3")
    assert set(board.asked) == {f"GPU-{UUID}"}
    assert meter.read() == 0.0
    board.millijoules += 1_234
    assert meter.read() == pytest.approx(1.234, abs=1e-12)
    assert energy_note("cuda:3") == "measured by NVML, the whole board"


def test_a_driver_that_was_loaded_anew_adds_and_never_subtracts(board: Board):
    meter = meter_of("cuda")
    board.millijoules += 2_000
    assert meter.read() == 2.0
    board.millijoules = 500
    assert meter.read() == 2.5


def test_a_gpus_reading_that_fails_is_not_a_number(board: Board):
    meter = meter_of("cuda")
    board.fails = True
    assert meter.read() != meter.read()
    board.fails = False
    board.millijoules += 3_000
    assert meter.read() == 3.0


def test_a_slice_of_a_gpu_and_an_old_gpu_have_no_counter(board: Board, monkeypatch: pytest.MonkeyPatch):
    board.fails = True
    assert find_meter("cuda") is None
    assert energy_note("cuda").startswith(f"not measured: NVML gives no total energy for GPU-{UUID}: Unknown Error")
    slice_ = SimpleNamespace(uuid=f"MIG-{UUID}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: slice_)
    assert find_meter("cuda:1") is None
    assert f"for MIG-{UUID}: Not Found" in energy_note("cuda:1")


def test_without_nvidias_package_that_is_said(board: Board, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_meter("cuda") is None
    assert "nvidia-ml-py is not installed" in energy_note("cuda")


def test_without_a_driver_that_is_said(monkeypatch: pytest.MonkeyPatch):
    """NVIDIA's own package, on a machine of any kind."""
    pynvml = pytest.importorskip("pynvml")

    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=UUID))
    assert find_meter("cuda") is None
    assert "NVML Shared Library Not Found" in energy_note("cuda")


# fits -----------------------------------------------------------------------------------------------------------------


@dataclass
class Made:
    """A meter that says what it likes, and keeps what it said."""

    joules: float = 0.0
    said: list[float] = field(default_factory=list)
    random: Random = field(default_factory=lambda: Random(7))
    broken: bool = False

    def read(self) -> float:
        self.joules += self.random.expovariate(1 / 40)
        self.said.append(math.nan if self.broken else self.joules)
        return self.said[-1]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """The meter of every engine that is made from here on."""
    meter = Made()
    monkeypatch.setattr("sweeper.engine.meter.find_meter", lambda device: meter)
    return meter


def engine_of(slots: int, **options: Any) -> Engine:
    folds = [fold(Task.MULTICLASS, 6, rows, 3, seed) for seed, rows in enumerate([(40, 20, 20), (25, 10, 10)])]
    return Engine(build(6, (5,), 3), folds, ADAM, Task.MULTICLASS, slots=slots, **options)


def spent_in(made: Made, tick: Tick, first: int) -> tuple[float, float]:
    """What the meter said of a tick, from its reading number `first` on: in all, and of that the empty lanes' share."""
    start, trained = made.said[first : first + 2]
    return made.said[-1] - start, (trained - start) * (1 - tick.busy / (tick.steps * tick.slots))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("width", [None, 2], ids=["one group", "groups of two"])
def test_all_that_the_meter_said_of_a_tick_is_a_fits_or_idle(made: Made, width: int | None):
    engine, paid, told, idle = engine_of(4, width=width), list[Cost](), 0.0, 0.0
    waiting = [fit(number, 2, fold=number % 2) for number in range(7)]
    for turn in itertools.count():
        now, waiting = waiting[: engine.free], waiting[engine.free :]
        engine.admit(now)
        made.joules += 1e6  # between two ticks: nobody's
        first = len(made.said)
        tick = engine.train()
        in_all, empty = spent_in(made, tick, first)
        assert tick.joules == pytest.approx(in_all, rel=1e-12)
        told, idle = told + in_all, idle + empty
        paid += [result.cost for result in tick.results]
        if turn == 1:
            paid += engine.evict(["fit 1"]).values()
            paid += [result.cost for result in engine.prune(["fit 2"])]
        if not waiting and engine.free == engine.slots:
            break
    assert len(paid) == 7
    assert idle > 0
    assert sum(cost.joules or 0.0 for cost in paid) + idle == pytest.approx(told, rel=1e-12)
    assert min(cost.joules or 0.0 for cost in paid) > 0


@pytest.mark.usefixtures("one_thread")
def test_fits_that_run_side_by_side_pay_the_same(made: Made):
    engine = engine_of(3)
    engine.admit([fit(0, 2), fit(1, 2, fold=1)])
    tick = engine.train()
    assert tick.joules is not None
    one, two = engine.evict().values()
    assert one.joules == two.joules == pytest.approx(tick.joules / tick.slots, rel=1e-12)


@pytest.mark.usefixtures("one_thread")
def test_without_a_meter_no_fit_has_an_energy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sweeper.engine.meter.find_meter", lambda device: None)
    engine = engine_of(1)
    assert run_alone(engine, fit(0, 2)).cost.joules is None
    assert engine.train().joules is None


@pytest.mark.usefixtures("one_thread")
def test_a_fit_with_an_epoch_that_was_not_measured_is_not_measured(made: Made):
    engine = engine_of(2)
    engine.admit([fit(0, 2)])
    engine.train()
    made.broken = True
    engine.train()
    made.broken = False
    engine.train()
    engine.admit([fit(1, 2)])
    engine.train()
    before, after = (cost.joules or 0.0 for cost in engine.evict().values())
    assert math.isnan(before)
    assert after > 0


# the arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "before", "now", "gain"),
    [
        pytest.param(100, 20, 70, 50, id="within a round"),
        pytest.param(100, 70, 20, 50, id="into the next round"),
        pytest.param(100, 99, 0, 1, id="just over the edge"),
        pytest.param(0, 70, 20, 20, id="back at zero without a period"),
        pytest.param(0, 20, 20, 0, id="nothing yet"),
    ],
)
def test_a_counters_gain_between_two_readings(period: int, before: int, now: int, gain: int):
    assert Counter(lambda: 0, 1.0, period).gain(before, now) == gain


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_real_gpus_energy_grows():
    meter = meter_of("cuda")
    x = torch.randn(4096, 4096, device="cuda")
    for _ in range(200):
        x = (x @ x).clamp(-1, 1)
    torch.cuda.synchronize()
    assert 0 < meter.read() < 10_000
