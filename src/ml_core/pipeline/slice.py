"""Find where a model fails: in which slices of patches, with which errors, and when to abstain.

Reads predictions/SPLIT.parquet, the audit's patches.parquet (or measures the patches, where no
audit holds them all) and features/SPLIT.parquet if `explain` wrote it; writes slices.json,
slices.csv, errors.json and uncertainty.json (slices-SPLIT.json, ... of another split than valid)
into the run.

    ml-core slice runs/pcam_cnn/20260102-030405-seed42
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_core.evaluation.errors.rank import rank_errors
from ml_core.evaluation.shortcuts import measure_shortcuts
from ml_core.evaluation.slices.join import join_patches
from ml_core.evaluation.slices.own import own_slices
from ml_core.evaluation.slices.patch_facts import patch_facts
from ml_core.evaluation.slices.scores import score_slices
from ml_core.evaluation.slices.standard import standard_slices
from ml_core.evaluation.uncertainty.measure import measure_uncertainty
from ml_core.log import shown
from ml_core.pipeline.examining.discovery import search_failures
from ml_core.pipeline.examining.from_valid import FromValid, read_from_valid
from ml_core.pipeline.examining.patch_table import patches_of, shortcuts_of_audit
from ml_core.pipeline.examining.result_files import head_of, write_result
from ml_core.pipeline.examining.said import say_errors, say_slices, say_uncertainty
from ml_core.pipeline.examining.scored_split import load_scored
from ml_core.pipeline.examining.sibling_seeds import predictions_of_other_seeds
from ml_core.pipeline.examining.tapped import features_of, neighbours_in_train
from ml_core.pipeline.parts.operating_run import open_operating_run

logger = logging.getLogger("ml_core.slice")


def slice_predictions(
    path: Path, split: str = "valid", overrides: Iterable[str] = ()
) -> dict[str, Any]:
    """Return what was found in short, with the files that hold all of it.

    `path` is a run's directory, judged raw at its own threshold, or a champion.json, judged
    calibrated at the champion's. Raises RunError, DataError, and ConfigError for a slice of the
    config that is no query.
    """
    operating = open_operating_run(path, overrides)
    predictions = load_scored(operating, split)
    run, config, threshold = operating.run, operating.config, operating.threshold
    table = patches_of(operating, split, predictions.index)
    rows = join_patches(predictions, table.rows, table.source)
    facts = patch_facts(rows)
    slides = facts["slide"].to_numpy(object) if "slide" in facts else None
    head = {**head_of(operating, predictions), "patches": table.source}
    resampling = {"num_resamples": config.evaluation.num_resamples, "seed": config.seed}

    # on a test split nothing is searched or chosen: what valid gave is looked at again
    is_test = split == "test"
    valid = read_from_valid(operating) if is_test else FromValid({}, {})
    slices = [*standard_slices(facts), *own_slices(config.slices, facts), *valid.rules(facts)]
    scored = score_slices(
        predictions,
        threshold,
        slices,
        slides=slides,
        false_discovery_rate=config.evaluation.false_discovery_rate,
        **resampling,
    )
    features = features_of(operating, predictions)
    copies = rows.get("content_hash")
    found = None
    if split != "test":
        found = search_failures(operating, predictions, facts, copies, features)
    shortcuts = measure_shortcuts(predictions, facts, shortcuts_of_audit(operating, split))
    content = {
        **head,
        **scored.to_dict(),
        "discovery": None if found is None else found.to_dict(),
        "shortcuts": shortcuts,
    }
    content["findings"] = [*map(dataclasses.asdict, valid.findings), *content["findings"]]
    write_result(run.slices_path(split), content)
    scored.save_csv(run.slices_csv_path(split))

    seeds = predictions_of_other_seeds(operating, predictions)
    neighbours = neighbours_in_train(operating, features)
    errors = rank_errors(
        predictions, threshold, rows, neighbours=neighbours, seed_predictions=seeds
    ).to_dict()
    write_result(run.errors_path(split), {**head, **errors})
    uncertainty = measure_uncertainty(
        predictions,
        threshold,
        run_name=run.name,
        seed_predictions=seeds,
        target_risk=config.evaluation.target_risk,
        may_choose=not is_test,
        chosen=valid.abstention,
        **resampling,
    ).to_dict()
    write_result(run.uncertainty_path(split), {**head, **uncertainty})

    logger.info(
        "%s on %s, %s patches, threshold %.4g",
        shown(run.path), split, f"{len(predictions):,}", threshold,
    )  # fmt: skip
    for finding in valid.findings:
        logger.warning("%s", finding.message)
    say_slices(content)
    say_errors(errors)
    say_uncertainty(uncertainty)
    return {
        "run": str(run.path),
        "split": split,
        "slices": str(run.slices_path(split)),
        "errors": str(run.errors_path(split)),
        "uncertainty": str(run.uncertainty_path(split)),
        "num_tested": content["num_tested"],
        "num_worse": content["num_worse"],
        "num_discovered": 0 if found is None else found.num_confirmed,
        "num_errors": errors["num_errors"],
        "num_doubtful_labels": errors["doubtful_labels"]["n"],
    }
