"""Options that several verbs take, and how a verb ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, see docs/config.md")]
OptionalConfigPath = Annotated[
    Path | None, typer.Argument(metavar="CONFIG", help="YAML file, see docs/config.md")
]
DataDir = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of PCam files.")]
OutDir = Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder for the files.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. training.epochs=3."),
]
Resume = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Go on with this run where it stopped.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one last line of JSON.")]

FOUND = 3
INTERRUPTED = 130


def finish(result: dict[str, Any], as_json: bool) -> None:
    """End a verb: the result as JSON if wanted, and 130 if it was interrupted."""
    if as_json:
        print(json.dumps(result, default=str), flush=True)
    if result.get("status") == "interrupted":
        raise typer.Exit(INTERRUPTED)
