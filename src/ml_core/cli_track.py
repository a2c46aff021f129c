"""The verbs about MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ml_core.cli_options import AsJson, finish

track_app = typer.Typer(help="Feed MLflow from runs, and look at it.", no_args_is_help=True)


@track_app.command("sync")
def track_sync(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Runs, studies or a champion.json.")
    ],
    uri: Annotated[
        str | None, typer.Option(help="MLflow server [default: the run's tracking.mlflow_uri].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send to MLflow what it has not received, once."""
    from ml_core.pipeline.track_sync import track_sync as stage

    finish(stage(paths, uri), as_json)


@track_app.command("ui")
def track_ui(
    path: Annotated[
        Path, typer.Argument(help="Folder of runs, or one experiment, study or run.")
    ] = Path("runs"),
    port: Annotated[
        int | None, typer.Option(help="Port on this machine [default: 5000, or the next free].")
    ] = None,
) -> None:
    """Open MLflow on what is there, on this machine only, until Ctrl-C."""
    from ml_core.pipeline.track_ui import track_ui as stage

    finish(stage(path, port), as_json=False)
