"""The verbs about the same run again: verify, twin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ml_core.cli_options import FOUND, AsJson, ConfigPath, Overrides, finish
from ml_core.errors import ConfigError

Verified = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN|RUN RUN|WITNESS", help="A run's directory, two of them, or a witness's file."
    ),
]


def verify(
    paths: Verified,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Take this many steps again [default: 50].")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Take every recorded step again, with validation.")
    ] = False,
    from_step: Annotated[
        int | None,
        typer.Option(
            "--from", min=1, metavar="STEP",
            help="Start from the run's checkpoint at this step; to the next state on record.",
        ),
    ] = None,
    witness: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a short portable witness of the run's recipe to this file."
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say whether a run can be had again bit for bit; if not, what differs first, and what to do.

    Exits with 3 when it cannot.
    """
    from ml_core.pipeline import verify as stage
    from ml_core.pipeline.verifying import witness as witnesses

    is_part = steps is not None or full or from_step is not None
    if len(paths) > 2:
        raise ConfigError(f"{len(paths)} paths were given; give one run, two runs, or a witness.")
    if len(paths) == 2:
        _refuse_options("two runs are compared as recorded", is_part, overrides, witness)
        result = stage.verify_two(*paths)
    elif paths[0].suffix == ".json":
        _refuse_options("a witness is trained again as it is", is_part, overrides, witness)
        result = witnesses.verify_witness(paths[0])
    elif witness is not None:
        _refuse_options("--witness writes a file and replays nothing", is_part)
        result = witnesses.write_witness(paths[0], witness, overrides or ())
    else:
        result = stage.verify_run(
            paths[0], overrides or (), steps=steps, full=full, from_step=from_step
        )
    _finish(result, as_json)


def twin(
    config: ConfigPath,
    others: Annotated[
        list[str] | None,
        typer.Option("--other", metavar="KEY=VALUE", help="Override a key of the second alone."),
    ] = None,
    other_ranks: Annotated[
        int, typer.Option(min=1, help="Processes that share the second training.")
    ] = 1,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train a config twice, in two fresh processes, and verify that both are the same run.

    Exits with 3 when they are not.
    """
    from ml_core.pipeline.twin import twin as stage

    result = stage(config, overrides or (), others=others or (), other_ranks=other_ranks)
    _finish(result, as_json)


def _finish(result: dict[str, Any], as_json: bool) -> None:
    """End a verb: as any other, and with 3 where the two are not the same run."""
    finish(result, as_json)
    if result["status"] == "different":
        raise typer.Exit(FOUND)


def _refuse_options(why: str, *given: object) -> None:
    """Raise ConfigError where an option was given that means nothing here."""
    if any(given):
        raise ConfigError(f"{why}: leave the other options but --json away.")


def add_verbs(app: typer.Typer) -> None:
    """Give `app` the verbs of this module."""
    for verb in (verify, twin):
        app.command()(verb)
