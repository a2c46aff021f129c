"""The verbs about a trained run: evaluate, explain, slice, predict, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ml_core.cli_options import AsJson, Overrides, RunOrChampion, command_line, finish
from ml_core.errors import ConfigError


def evaluate(
    path: RunOrChampion,
    split: Annotated[
        str, typer.Option(help="train, valid, or test, which only a champion.json opens.")
    ] = "valid",
    unsealed: Annotated[
        bool,
        typer.Option(
            "--unsealed", help="For teaching: open test without a champion; the report is stamped."
        ),
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Score a run's best checkpoint: predictions table, metrics with intervals, figures."""
    from ml_core.pipeline.evaluate import evaluate as stage

    result = stage(path, split, overrides or (), unsealed=unsealed, command=command_line())
    finish(result, as_json)


def explain(
    path: RunOrChampion,
    split: Annotated[str, typer.Option(help="train or valid.")] = "valid",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Ask the model: where it looks, what the centre is worth, which changes unsettle it."""
    from ml_core.pipeline.explain import explain as stage

    finish(stage(path, split, overrides or ()), as_json)


def slice_(
    path: RunOrChampion,
    split: Annotated[
        str, typer.Option(help="train, valid, or test where it was opened for the champion.")
    ] = "valid",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Find where it fails: slices of patches, errors, doubtful labels, when to abstain."""
    from ml_core.pipeline.slice import slice_predictions as stage

    finish(stage(path, split, overrides or ()), as_json)


def predict(
    path: RunOrChampion,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="HDF5, PNG, JPEG or TIFF patches.")
    ],
    out: Annotated[Path, typer.Option(help="Table to write, .csv or .parquet.")] = Path(
        "predictions.csv"
    ),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write the probability of tumour for each patch of the files."""
    from ml_core.pipeline.predict import predict as stage

    finish(stage(path, files, out, overrides or ()), as_json)


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...|STUDY|CHAMPION", help="One run or several, a study, or a champion.json."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write [default: report.html in the run].")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page about evaluated runs, or about a study."""
    if len(paths) == 1 and (paths[0] / "study.json").is_file():
        _refuse_for_a_study(out, overrides)
        from ml_core.pipeline.searching.study_report import study_report

        finish(study_report(paths[0]), as_json)
        return
    from ml_core.pipeline.report import report as stage

    finish(stage(paths, out, overrides or ()), as_json)


def _refuse_for_a_study(*options: object) -> None:
    if any(options):
        raise ConfigError("the page of a study is study.html in it: give STUDY without options.")


def add_verbs(app: typer.Typer) -> None:
    """Give `app` the verbs of this module."""
    app.command()(evaluate)
    app.command()(explain)
    app.command("slice")(slice_)
    app.command()(predict)
    app.command()(report)
