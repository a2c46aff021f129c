"""The command line: one function per verb. Stages are imported inside, so `--help` is quick.

Exit codes: 0 done, 2 something the user can mend (a message, no traceback), 3 an audit, a
verification or the doctor found something, 130 interrupted, 1 our own mistake (a traceback).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

import ml_core
from ml_core.cli_benchmark import add_verbs as add_benchmark_verbs
from ml_core.cli_cluster import add_verbs as add_cluster_verbs
from ml_core.cli_data import data_app
from ml_core.cli_evaluation import add_verbs as add_evaluation_verbs
from ml_core.cli_experiments import add_verbs
from ml_core.cli_options import (
    FOUND,
    AsJson,
    ConfigPath,
    Elsewhere,
    OptionalConfigPath,
    Overrides,
    Resume,
    command_line,
    finish,
    refuse_beside_resume,
    refuse_ranks,
    refuse_removed_folder,
    refuse_without_resume,
    required,
)
from ml_core.cli_track import track_app
from ml_core.cli_verify import add_verbs as add_verify_verbs
from ml_core.errors import ConfigError, in_words
from ml_core.scheduler_signals import ignore_until_the_end

app = typer.Typer(
    name="ml-core",
    help="From raw histopathology patches to a classifier that can be believed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Look at configurations.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.add_typer(track_app, name="track")


@app.command()
def audit(
    path: Annotated[
        Path, typer.Argument(metavar="DATA_DIR|CONFIG", help="Folder of PCam files, or a config.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results [default: audit in the data's].")
    ] = None,
    fail_on: Annotated[
        Literal["error", "warning", "nothing"],
        typer.Option(help="Exit with 3 from this severity on, or never."),
    ] = "error",
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at a sample of each split, in seconds.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Look at every patch of a data set and say what is wrong with it."""
    from ml_core.pipeline.audit import audit as stage

    result = stage(
        path, out, fail_on=fail_on, quick=quick, overrides=overrides or (), command=command_line()
    )
    finish(result, as_json)
    if result["failed"]:
        raise typer.Exit(FOUND)


@app.command()
def run(
    config: OptionalConfigPath = None,
    overrides: Overrides = None,
    resume: Resume = None,
    elsewhere: Elsewhere = False,
    as_json: AsJson = False,
) -> None:
    """Check the data, train every seed, evaluate, and write the report."""
    from ml_core.config import Config
    from ml_core.pipeline import run as stage

    if resume is not None:
        refuse_beside_resume("RUN", config)
        finish(
            stage.resume(resume, overrides or (), command=command_line(), elsewhere=elsewhere),
            as_json,
        )
    else:
        refuse_without_resume(elsewhere)
        loaded = Config.load(required(config), overrides or ())
        finish(stage.run(loaded, command=command_line()), as_json)


@app.command()
def train(
    config: OptionalConfigPath = None,
    overrides: Overrides = None,
    resume: Resume = None,
    elsewhere: Elsewhere = False,
    fast_dev_run: Annotated[
        bool,
        typer.Option(
            "--fast-dev-run",
            help="Take two batches through train, validate, checkpoint, resume and evaluate.",
        ),
    ] = False,
    lr_find: Annotated[
        bool,
        typer.Option("--lr-find", help="Train with a rising learning rate and suggest one."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the data and train, one run per seed; or resume a run."""
    from ml_core.config import Config

    if resume is not None:
        refuse_beside_resume("RUN", config, fast_dev_run, lr_find)
        from ml_core.pipeline.train import resume as resume_stage

        finish(
            resume_stage(resume, overrides or (), command=command_line(), elsewhere=elsewhere),
            as_json,
        )
        return
    refuse_without_resume(elsewhere)
    loaded = Config.load(required(config), overrides or ())
    if fast_dev_run and lr_find:
        raise ConfigError("--fast-dev-run and --lr-find are two things: give one of them.")
    if fast_dev_run:
        from ml_core.pipeline.fast_dev_run import fast_dev_run as stage
    elif lr_find:
        from ml_core.pipeline.lr_find import lr_find as stage
    else:
        from ml_core.pipeline.train import train as stage
    finish(stage(loaded, command=command_line()), as_json)


add_evaluation_verbs(app)
add_verbs(app)
add_verify_verbs(app)
add_benchmark_verbs(app)
add_cluster_verbs(app)


@config_app.command("show")
def config_show(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print the resolved configuration: defaults filled in, paths absolute."""
    from ml_core.config import Config

    loaded = Config.load(config, overrides or ())
    if as_json:
        print(json.dumps(loaded.model_dump(mode="json")))
    else:
        print(loaded.dump_yaml(), end="")


def _version(value: bool) -> None:
    if value:
        print(f"ml-core {ml_core.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    from ml_core.log import setup_cli_logging

    setup_cli_logging()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` default to those of the process."""
    if arguments is not None:
        sys.argv = ["ml-core", *arguments]
    try:
        refuse_ranks(sys.argv[1:])
        refuse_removed_folder()
        app()
    except Exception as error:
        told = in_words(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2)
    finally:
        if arguments is None:  # a process of its own, which has nothing left to do
            ignore_until_the_end()


if __name__ == "__main__":
    main()
