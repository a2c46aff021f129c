"""The verbs of `ml-core data`: get, make, check and move data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ml_core.cli_options import AsJson, DataDir, Force, OutDir, Overrides, finish

data_app = typer.Typer(help="Get, make, check and move data sets.", no_args_is_help=True)


@data_app.command("synth")
def data_synth(
    out_dir: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the files.")],
    train: Annotated[int, typer.Option(help="Patches in train.")] = 4000,
    valid: Annotated[int, typer.Option(help="Patches in valid.")] = 1000,
    test: Annotated[int, typer.Option(help="Patches in test.")] = 1000,
    seed: Annotated[int, typer.Option(help="Another seed gives other patches.")] = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic H&E-like data set in PCam's layout."""
    from ml_core.pipeline.data_synth import data_synth as stage

    finish(stage(out_dir, train, valid, test, seed=seed, force=force), as_json)


@data_app.command("info")
def data_info(
    path: Annotated[
        Path, typer.Argument(metavar="DIR|CONFIG", help="Folder of PCam files, or a config.")
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check the files of a data set and say what they hold."""
    from ml_core.pipeline.data_info import data_info as stage

    finish(stage(path, overrides or ()), as_json)


@data_app.command("manifest")
def data_manifest(
    folder: DataDir,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="[default: dataset.json in DIR].")
    ] = None,
    note: Annotated[str, typer.Option(help="A line to keep in it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write dataset.json: what the files are, to the bit; keep it in git."""
    from ml_core.pipeline.data_manifest import data_manifest as stage

    finish(stage(folder, out, note), as_json)


@data_app.command("verify")
def data_verify(
    folder: DataDir,
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="[default: dataset.json in DIR].")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder that remembers what was verified.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Read files again all the same.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare files with dataset.json, or with PCam's official checksums."""
    from ml_core.pipeline.data_verify import data_verify as stage

    finish(stage(folder, manifest, state_dir=state_dir, fresh=fresh), as_json)


@data_app.command("download")
def data_download(
    folder: DataDir,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="train, valid or test [default: all].")
    ] = None,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Keep the .gz files too.")
    ] = False,
    base_url: Annotated[
        str | None, typer.Option("--url", help="Another place that serves the same files.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download PatchCamelyon, check it, and unpack it; goes on where it was stopped."""
    from ml_core.data.layout import SPLITS
    from ml_core.pipeline.data_download import data_download as stage

    chosen = splits or list(SPLITS)
    finish(stage(folder, chosen, keep_archives=keep_archives, base_url=base_url), as_json)


@data_app.command("pack")
def data_pack(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="Folder of images, HDF5 file or PCam folder."),
    ],
    out_dir: OutDir,
    split: Annotated[
        str | None, typer.Option(help="[default: the csv's column split, else train].")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="csv of the images [default: labels.csv in SOURCE], or HDF5 of labels."),
    ] = None,
    meta: Annotated[Path | None, typer.Option(help="Meta csv of an HDF5 file.")] = None,
    key: Annotated[str, typer.Option(help="Data set of patches in the HDF5 file.")] = "x",
    label_key: Annotated[str, typer.Option(help="Data set of labels.")] = "y",
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Height and width of the images [default: those of the first]."),
    ] = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave damaged patches out; list them.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads [default: one per core].")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Pack images or any HDF5 into flat uint8 files in PCam's layout, read back and compared."""
    from ml_core.pipeline.data_pack import data_pack as stage

    result = stage(
        source,
        out_dir,
        split=split,
        labels=labels,
        meta=meta,
        key=key,
        label_key=label_key,
        size=size,
        skip_damaged=skip_damaged,
        force=force,
        num_threads=threads,
    )
    finish(result, as_json)


@data_app.command("split")
def data_split(
    source: DataDir,
    out_dir: OutDir,
    by: Annotated[
        str | None, typer.Option(help="wsi or patient [default: patient where it is known].")
    ] = None,
    valid: Annotated[float, typer.Option(help="Share of the patches.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of the patches.")] = 0.15,
    seed: Annotated[int, typer.Option(min=0, help="Another seed divides otherwise.")] = 0,
    source_split: Annotated[
        str | None, typer.Option(help="Which split of DIR is divided, where there are several.")
    ] = None,
    meta: Annotated[Path | None, typer.Option(help="csv of slides and patients.")] = None,
    ungrouped: Annotated[
        bool, typer.Option("--ungrouped", help="Divide patch by patch, which leaks.")
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Divide patches into train, valid and test; no slide or patient is in two of them."""
    from ml_core.pipeline.data_split import data_split as stage

    result = stage(
        source,
        out_dir,
        by=by,
        valid=valid,
        test=test,
        seed=seed,
        source_split=source_split,
        meta=meta,
        ungrouped=ungrouped,
        force=force,
    )
    finish(result, as_json)


@data_app.command("stage")
def data_stage(
    source: DataDir,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder on a disk of this machine.")],
    as_json: AsJson = False,
) -> None:
    """Copy a data set to a local disk, once for all jobs of a machine, and check it."""
    from ml_core.pipeline.data_stage import data_stage as stage

    finish(stage(source, dest), as_json)
