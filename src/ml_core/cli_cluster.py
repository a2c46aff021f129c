"""The verbs about a cluster: doctor before, submit, jobs after."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from ml_core.cli_options import (
    FOUND,
    AsJson,
    OptionalConfigPath,
    Overrides,
    command_line,
    finish,
)
from ml_core.errors import ClusterError

ProfileName = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="What to ask the cluster for: a built-in profile, or a YAML file (docs/hpc.md).",
    ),
]
Ask = Annotated[
    list[str] | None,
    typer.Option(
        "--ask", metavar="KEY=VALUE", help="Override a key of the profile, e.g. time=04:00:00."
    ),
]
DEFAULT_PROFILE = "generic-cpu"


def doctor(
    config: OptionalConfigPath = None,
    profile: ProfileName = DEFAULT_PROFILE,
    ask: Ask = None,
    overrides: Overrides = None,
    with_torch: Annotated[
        bool, typer.Option("--torch", help="Import torch too: a few seconds; what it sees of GPUs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say in seconds what would fail: Python, packages, data, paths, memory, GPUs, Slurm.

    Exits with 3 when something would.
    """
    from ml_core.pipeline.doctor import doctor as stage

    result = stage(
        config, profile=profile, ask=ask or (), overrides=overrides or (), with_torch=with_torch
    )
    finish(result, as_json)
    if result["status"] == "error":
        raise typer.Exit(FOUND)


def submit(
    context: typer.Context,
    verb: Annotated[
        str,
        typer.Argument(
            metavar="VERB",
            help="What to run as a job: train, run, tune, audit, ..., or chain: "
            "audit, tune, select, evaluate and report, each after the one before.",
        ),
    ],
    profile: ProfileName = DEFAULT_PROFILE,
    ask: Ask = None,
    after: Annotated[
        list[str] | None,
        typer.Option("--after", metavar="JOB", help="Start only when this job has ended well."),
    ] = None,
    array: Annotated[
        int | None, typer.Option(min=1, help="Jobs that search [default: search.num_workers].")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the job [default: VERB and the experiment's].")
    ] = None,
    fast_dev_run: Annotated[
        bool,
        typer.Option(
            "--fast-dev-run/--no-fast-dev-run",
            help="First take two batches through everything, here, and measure them.",
        ),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, print the scripts, submit nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when all jobs have ended: 0 if all did well.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything, then queue a verb on Slurm with the words that follow it.

    What follows VERB are its own arguments: submit train CONFIG --set training.epochs=3.
    """
    from ml_core.pipeline.submit import submit as stage

    root = context.find_root().command
    assert isinstance(root, TyperGroup), "ml-core has verbs"
    result = stage(
        verb,
        context.args,
        commands=root.commands,
        profile=profile,
        ask=ask or (),
        after=after or (),
        array=array,
        name=name,
        fast_dev_run=fast_dev_run,
        dry_run=dry_run,
        wait=wait,
        command=command_line(),
    )
    finish(result, as_json)
    if result["status"] == "failed":
        raise ClusterError("not all jobs ended well; see: ml-core jobs")


def jobs(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB", help="Tell these in full, with the end of their logs."),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Also those that ended more than a day ago.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say how your jobs are: why one waits, why one failed, what they use of what they asked."""
    from ml_core.pipeline.jobs import jobs as stage

    finish(stage(ids or (), all_=all_), as_json)


def add_verbs(app: typer.Typer) -> None:
    """Give `app` the verbs of this module."""
    app.command()(doctor)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(submit)
    app.command()(jobs)
