"""Write the probability of tumour for each patch of some files.

Reads a run's best checkpoint and the files: HDF5 with the key `x`, or PNG, JPEG, TIFF of one patch
each. Writes a table, csv or parquet by its ending: file, index, y_prob, y_pred, error. An image
that cannot be read is a row with an error. A champion.json brings its calibration and threshold,
and where it states a deployment prevalence, y_prob_deployed: the probability there.

    ml-core predict runs/pcam_cnn/20260102-030405-seed42 patches/*.png --out predictions.csv
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml_core.audit.files import AuditDir, AuditRecord
from ml_core.config import Config
from ml_core.data.checks import hash_file
from ml_core.data.image_files import IMAGE_SUFFIXES, read_image
from ml_core.data.layout import split_paths
from ml_core.data.patch_file import PatchFile
from ml_core.durable import written_aside
from ml_core.errors import DataError, MLCoreError, RunError
from ml_core.evaluation.predictor import predict as predict_batches
from ml_core.evaluation.prior_shift import adjust_prior
from ml_core.log import progress
from ml_core.pipeline.parts.operating_run import open_operating_run
from ml_core.pipeline.parts.splits import INFERENCE_BATCH_SIZE
from ml_core.pipeline.parts.trained_model import TrainedModel, load_run_config, load_trained
from ml_core.pipeline.parts.unlabelled_batch import UnlabelledBatch, unlabelled
from ml_core.runs import RunDir, RunRecord

logger = logging.getLogger("ml_core.predict")

HDF5_SUFFIXES = (".h5", ".hdf5")
TABLE_SUFFIXES = (".csv", ".parquet")
COLUMNS = ["file", "index", "y_prob", "y_pred", "error"]


def predict(
    path: Path, files: list[Path], out: Path, overrides: Iterable[str] = ()
) -> dict[str, Any]:
    """Return {"out", "patches", "errors", "weights_sha256"}; raises RunError, DataError.

    `y_pred` is 1 from the champion's threshold on, or from the run's evaluation.threshold. The test
    split is refused: `evaluate` opens that, and counts it.
    """
    if out.suffix not in TABLE_SUFFIXES:
        raise DataError(f"--out {out}: the table must end in {' or '.join(TABLE_SUFFIXES)}.")
    for file in files:
        _check_kind(file)
    operating = open_operating_run(path, overrides)
    run, config = operating.run, operating.config
    _refuse_test_split(run, config, files)
    trained = load_trained(run, config)
    patch_size = config.data.input_shape[1:]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    tables = [
        _predict_hdf5(trained, file, patch_size)
        for file in files
        if file.suffix.lower() in HDF5_SUFFIXES
    ]
    tables += [_predict_images(trained, images, patch_size)] if images else []
    table = pd.concat(tables, ignore_index=True)
    is_read = table["logit"].notna()
    table["y_prob"] = np.nan
    table.loc[is_read, "y_prob"] = operating.calibration.apply(table.loc[is_read, "logit"])
    table["y_pred"] = (table["y_prob"] >= operating.threshold).astype("Int8")
    table.loc[~is_read, "y_pred"] = pd.NA
    columns = COLUMNS
    if (shift := operating.prior_shift) is not None:
        here, there = shift["from_prevalence"], shift["to_prevalence"]
        table["y_prob_deployed"] = np.nan
        table.loc[is_read, "y_prob_deployed"] = adjust_prior(
            table.loc[is_read, "y_prob"].to_numpy(), here, there
        )
        columns = [*COLUMNS[:3], "y_prob_deployed", *COLUMNS[3:]]
        logger.info(
            "y_prob is for %.1f %% tumour, y_prob_deployed for the stated %.1f %%",
            100 * here,
            100 * there,
        )
    _write_table(table[columns], out)
    num_errors = int(table["error"].notna().sum())
    logger.info(
        "%s: %d patches, %d called tumour at %g%s",
        out, len(table), int(table["y_pred"].sum()), operating.threshold,
        f", {num_errors} could not be read (column error)" if num_errors else "",
    )  # fmt: skip
    return {
        "out": str(out),
        "patches": len(table),
        "errors": num_errors,
        "weights_sha256": trained.weights_sha256,
    }


def _refuse_test_split(run: RunDir, config: Config, files: list[Path]) -> None:
    """Raise RunError where a file is the test split of the run's data, by place or by bytes."""
    trained_on = Path(RunRecord.load(run).data["valid"]["x_path"]).parent
    folders = {config.data.data_path, load_run_config(run).data.data_path, trained_on}
    tests = [split_paths(folder, "test").x for folder in folders]
    tests = [test for test in tests if test.is_file()]
    known = {_audited_digest(run)} - {None}
    for file in files:
        is_test = any(file.samefile(test) for test in tests)
        if not is_test and file.suffix.lower() in HDF5_SUFFIXES:
            alike = [test for test in tests if test.stat().st_size == file.stat().st_size]
            if known or alike:
                is_test = hash_file(file) in known | {hash_file(test) for test in alike}
        if is_test:
            raise RunError(
                f"{file} is the test split of this run's data, which is sealed. Open it, counted, "
                "for a champion: ml-core evaluate champion.json --split test."
            )


def _audited_digest(run: RunDir) -> str | None:
    """Return the SHA-256 of the test patches, where the audit that the run keeps has it."""
    if not run.audit_path.is_file():
        return None
    digests = AuditRecord.load(AuditDir(run.path)).digests.get("test")
    return digests[0] if digests else None


def _check_kind(file: Path) -> None:
    allowed = (*HDF5_SUFFIXES, *IMAGE_SUFFIXES)
    if file.suffix.lower() not in allowed:
        raise DataError(f"{file}: unknown kind of file; allowed: {', '.join(allowed)}.")
    if not file.is_file():
        raise DataError(f"there is no file {file}.")


def _predict_hdf5(trained: TrainedModel, path: Path, patch_size: tuple[int, int]) -> pd.DataFrame:
    file = PatchFile(path)
    if file.shape[1:3] != patch_size:
        raise DataError(
            f"{path} holds patches of {file.shape[1]} x {file.shape[2]} pixels; the model takes "
            f"{patch_size[0]} x {patch_size[1]}."
        )

    def batches() -> Iterator[UnlabelledBatch]:
        for start in range(0, len(file), INFERENCE_BATCH_SIZE):
            rows = np.arange(start, min(start + INFERENCE_BATCH_SIZE, len(file)))
            yield unlabelled(file.read(rows), rows)

    total = -(-len(file) // INFERENCE_BATCH_SIZE)
    predictions = predict_batches(
        trained.model,
        progress(batches(), total=total, description=path.name),
        trained.device,
        precision=trained.precision,
    )
    return pd.DataFrame(
        {
            "file": str(path),
            "index": predictions.index,
            "logit": predictions.logit,
            "error": pd.Series([None] * len(predictions.index), dtype="string"),
        }
    )


def _predict_images(
    trained: TrainedModel, paths: list[Path], patch_size: tuple[int, int]
) -> pd.DataFrame:
    errors: dict[int, str] = {}

    def batches() -> Iterator[UnlabelledBatch]:
        for start in range(0, len(paths), INFERENCE_BATCH_SIZE):
            patches, rows = [], []
            for row in range(start, min(start + INFERENCE_BATCH_SIZE, len(paths))):
                try:
                    patches.append(read_image(paths[row], patch_size))
                    rows.append(row)
                except MLCoreError as error:
                    errors[row] = str(error)
            if patches:
                yield unlabelled(np.stack(patches), np.array(rows))

    total = -(-len(paths) // INFERENCE_BATCH_SIZE)
    found = list(progress(batches(), total=total, description="images"))
    logits = np.full(len(paths), np.nan)
    if found:
        predictions = predict_batches(
            trained.model, found, trained.device, precision=trained.precision
        )
        logits[predictions.index] = predictions.logit
    return pd.DataFrame(
        {
            "file": [str(path) for path in paths],
            "index": 0,
            "logit": logits,
            "error": pd.Series([errors.get(i) for i in range(len(paths))], dtype="string"),
        }
    )


def _write_table(table: pd.DataFrame, out: Path) -> None:
    try:
        with written_aside(out) as aside:
            if out.suffix == ".csv":
                table.to_csv(aside, index=False)
            else:
                table.to_parquet(aside, index=False)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}.") from error
