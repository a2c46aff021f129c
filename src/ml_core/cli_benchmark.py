"""The verb about speed: benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ml_core.cli_options import AsJson, Overrides, command_line, finish
from ml_core.errors import ConfigError

Benchmarked = Annotated[
    list[Path],
    typer.Argument(
        metavar="CONFIG|A B|FILE...",
        help="A config; two with --compare; files benchmark.json with --table.",
    ),
]


def benchmark(
    paths: Benchmarked,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only as the config has it: no other ways to compute.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also write a trace of single operations.")
    ] = False,
    batch_sizes: Annotated[
        str | None,
        typer.Option(metavar="B,B,...", help="Batch sizes to measure [default: 1, 2 ... 512]."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=60, help="Time for each figure, more is steadier.")
    ] = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for benchmark.json, plots and trace."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Measure two configs in turns; ratios with intervals.")
    ] = False,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--other", metavar="KEY=VALUE", help="With --compare: override a key of B alone."
        ),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="One table of what was measured on several machines.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Measure reading, computing and training on this machine, and say what holds it back."""
    from ml_core.config import Config
    from ml_core.pipeline import benchmark as stage

    _refuse_at_once(compare, table, others, len(paths))
    if table:
        finish(stage.table_of(paths), as_json)
        return
    first = Config.load(paths[0], overrides or ())
    if compare:
        second = Config.load(paths[-1], [*(overrides or ()), *(others or ())])
        names = (paths[0].stem, " ".join([paths[-1].stem, *(others or ())]))
        finish(stage.compare(first, second, seconds=seconds, names=names), as_json)
        return
    result = stage.benchmark(
        first,
        quick=quick,
        profile=profile,
        sizes=_sizes(batch_sizes),
        seconds=seconds,
        out=out,
        command=command_line(),
    )
    finish(result, as_json)


def _refuse_at_once(compare: bool, table: bool, others: list[str] | None, num: int) -> None:
    if compare and table:
        raise ConfigError("--compare measures and --table reads what was measured: give one.")
    if others and not compare:
        raise ConfigError("--other is about the second config: give --compare A B as well.")
    if compare and num != 2 and not (num == 1 and others):
        raise ConfigError("--compare takes two configs, or one with --other KEY=VALUE.")
    if num > 1 and not (compare or table):
        raise ConfigError(f"{num} paths were given: one config, or --compare A B, or --table.")


def _sizes(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        sizes = tuple(int(word) for word in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"--batch-sizes {text!r}: give whole numbers above 0, such as 1,16,256.")
    return tuple(sorted(set(sizes)))


def add_verbs(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(benchmark)
