"""The commands, each a few lines: read what they need, hand it to a room, print."""

from __future__ import annotations

import typer

from sweeper.cli import check, deliver, look, price, replay, report, run, work

app = typer.Typer(
    name="sweeper",
    help="Hyperparameter sweeps that measure what each extra hyperparameter costs and what it buys.",
    epilog="Start here: sweeper run studies/digits.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("run", epilog="Example: sweeper run studies/digits.yaml")(run.run)
app.command("resume", epilog="Example: sweeper resume digits")(run.resume)
app.command("worker", epilog="Example: sweeper worker --sweep digits")(work.worker)
app.command("stop", epilog="Example: sweeper stop digits")(look.stop)
app.command("check", epilog="Example: sweeper check studies/digits.yaml")(check.check)
app.command("status", epilog="Example: sweeper status digits --json")(look.status)
app.command("trials", epilog="Example: sweeper trials digits --space per_layer --limit 10")(look.trials)
app.command("best", epilog="Example: sweeper best digits --space masked")(look.best)
app.command("replay", epilog="Example: sweeper replay digits/shared/0/7")(replay.replay)
app.command("price", epilog="Example: sweeper price digits --plot curves.svg")(price.price)
app.command("report", epilog="Example: sweeper report digits --out digits.html --plots pictures")(report.report)
app.command("dashboard", epilog="Example: sweeper dashboard --port 5000")(deliver.dashboard)
app.command("schema", epilog="Example: sweeper schema > sweep.schema.json")(look.schema)

mlflow = typer.Typer(help="What MLflow is told.", no_args_is_help=True, rich_markup_mode=None)
mlflow.command("sync", epilog="Example: sweeper mlflow sync digits")(deliver.sync)
app.add_typer(mlflow, name="mlflow")
