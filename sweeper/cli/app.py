"""The commands, each a few lines in a module of its own: read what they need, hand it to a room, print."""

from __future__ import annotations

from sweeper.cli.lazy import Command, lazy_app

app = lazy_app(
    "sweeper",
    "Hyperparameter sweeps that measure what each extra hyperparameter costs and what it buys.",
    "Start here: sweeper run studies/digits.yaml",
    {
        "run": Command("run", "run", "sweeper run studies/digits.yaml"),
        "launch": Command("launch", "launch", "sweeper launch studies/digits.yaml"),
        "resume": Command("run", "resume", "sweeper resume digits --trials +16"),
        "worker": Command("work", "worker", "sweeper worker --until-done"),
        "stop": Command("look", "stop", "sweeper stop digits"),
        "check": Command("check", "check", "sweeper check studies/digits.yaml"),
        "status": Command("look", "status", "sweeper status digits --json"),
        "trials": Command("look", "trials", "sweeper trials digits --space per_layer --limit 10"),
        "best": Command("look", "best", "sweeper best digits --space masked"),
        "replay": Command("replay", "replay", "sweeper replay digits/shared/0/7"),
        "price": Command("price", "price", "sweeper price digits --plot curves.svg"),
        "report": Command("report", "report", "sweeper report digits --out digits.html --plots pictures"),
        "doctor": Command("doctor", "doctor", "sweeper doctor --store postgresql://USER@HOST/DATABASE"),
        "dashboard": Command("deliver", "dashboard", "sweeper dashboard --port 5000"),
        "mlflow": {"sync": Command("deliver", "sync", "sweeper mlflow sync digits")},
        "schema": Command("look", "schema", "sweeper schema > sweep.schema.json"),
    },
    {"mlflow": "What MLflow is told."},
)
