"""The verbs about many runs: search, compare, select."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ml_core.cli_options import (
    AsJson,
    OptionalConfigPath,
    Overrides,
    RunsOrStudy,
    command_line,
    finish,
    refuse_beside_resume,
    required,
)
from ml_core.errors import ConfigError


def tune(
    config: OptionalConfigPath = None,
    overrides: Overrides = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes of this command [default: search.num_workers]; 0 begins the study.",
        ),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the new study; one of this config that is there is gone on with "
            "[default: by the time, in output_dir].",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="STUDY", help="Go on with this study; several jobs may do so at once."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search for better settings: train a run per trial, as the config's `search` says."""
    import ml_core.pipeline.tune as stage

    if resume is not None:
        refuse_beside_resume("STUDY", config, overrides, study)
        if workers == 0:
            raise ConfigError(
                "--workers 0 begins a study and leaves; give --resume STUDY at least one worker."
            )
        finish(stage.resume(resume, workers=workers, command=command_line()), as_json)
        return
    from ml_core.config import Config

    loaded = Config.load(required(config, "STUDY"), overrides or ())
    path = study and study.absolute()
    finish(stage.tune(loaded, workers=workers, path=path, command=command_line()), as_json)


def compare(
    paths: RunsOrStudy,
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help="Compare runs of different data or config, a row for each."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give the mean, the spread and the interval of runs that differ in their seed only."""
    from ml_core.pipeline.compare import compare as stage

    finish(stage(paths, mixed=mixed, out=out), as_json)


def select(
    paths: RunsOrStudy,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write [default: champion.json in the study, or by the runs]."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Freeze the champion: run, weights, threshold, calibration and evidence, from valid only."""
    from ml_core.pipeline.select import select as stage

    finish(stage(paths, out, overrides=overrides or (), command=command_line()), as_json)


def add_verbs(app: typer.Typer) -> None:
    """Give `app` the verbs of this module."""
    for verb in (tune, compare, select):
        app.command()(verb)
