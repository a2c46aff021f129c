"""Options that several verbs take, and how a verb ends."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ml_core.distributed import ranks_from_environment
from ml_core.errors import ConfigError, RunError

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, see docs/config.md")]
OptionalConfigPath = Annotated[
    Path | None, typer.Argument(metavar="CONFIG", help="YAML file, see docs/config.md")
]
DataDir = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of PCam files.")]
OutDir = Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder for the files.")]
RunsOrStudy = Annotated[
    list[Path], typer.Argument(metavar="RUN...|STUDY", help="Runs' directories, or one study's.")
]
RunOrChampion = Annotated[
    Path, typer.Argument(metavar="RUN|CHAMPION", help="A run's directory, or champion.json.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. training.epochs=3."),
]
Resume = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Go on with this run where it stopped.")
]
Elsewhere = Annotated[
    bool,
    typer.Option("--elsewhere", help="Resume though machine or libraries differ; it is recorded."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one last line of JSON.")]

FOUND = 3
INTERRUPTED = 130


def finish(result: dict[str, Any], as_json: bool) -> None:
    """End a verb: the result as JSON if wanted, by rank 0, and 130 if it was interrupted."""
    if as_json and ranks_from_environment().is_first:
        print(json.dumps(result, default=str), flush=True)
    if result.get("status") == "interrupted":
        raise typer.Exit(INTERRUPTED)


def refuse_without_resume(elsewhere: bool) -> None:
    """Raise ConfigError for --elsewhere where nothing is resumed."""
    if elsewhere:
        raise ConfigError("--elsewhere is of a resumed run: give --resume RUN --elsewhere.")


def refuse_ranks(arguments: Sequence[str]) -> None:
    """Raise ConfigError when several ranks were started for what one process does."""
    ranks = ranks_from_environment()
    alone = {"--fast-dev-run", "--lr-find"} & set(arguments)
    if ranks.world_size > 1 and (alone or arguments[:1] not in (["train"], ["run"])):
        what = " ".join([*arguments[:1], *sorted(alone)])
        raise ConfigError(
            f"{ranks.world_size} ranks were started, but ml-core {what} works in one process; "
            "train and run are shared by ranks. Start it by itself, without torchrun or srun -n."
        )


def refuse_removed_folder() -> None:
    """Raise RunError when the folder that the command was started in has been removed."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise RunError(
            "the folder that you are in was removed, so nothing can be found or written from "
            "here. Go to another one (cd), and run the command again."
        ) from None


def command_line() -> str:
    """Return what was typed, for the record, without the password that an address may hold."""
    typed = shlex.join(["ml-core", *sys.argv[1:]])
    return re.sub(r"(://[^/\s:@]+):[^/\s@]*@", r"\1:***@", typed)


def required(config: Path | None, resumed: str = "RUN") -> Path:
    """Return the config's path; raises ConfigError where it was not given."""
    if config is None:
        raise ConfigError(f"which config? Give a CONFIG file, or --resume {resumed}.")
    return config


def refuse_beside_resume(resumed: str, *others: object) -> None:
    """Raise ConfigError when something is given that a resumed one has of its own."""
    if any(others):
        raise ConfigError(
            f"a resumed {resumed.lower()} keeps its own config: give --resume {resumed} alone."
        )
