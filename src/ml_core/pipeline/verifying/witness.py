"""The witness of a run: its recipe in a few portable steps, which any machine must repeat."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_core
from ml_core.checkpoint import load_best
from ml_core.config import Config
from ml_core.errors import ConfigError, RunError, cannot_write
from ml_core.log import shown
from ml_core.pipeline.parts.trained_model import load_run_config
from ml_core.reproducibility import package_versions, prepare_numerics
from ml_core.runs import RunDir, read_json, write_json
from ml_core.solver.witness import DEFAULT_RECIPE, FORMAT, Witness, run_witness

logger = logging.getLogger("ml_core.verify")

NUM_STEPS = 4
LARGEST_BATCH = 32  # so that the default CNN takes under a minute on one core of a laptop


def write_witness(path: Path, out: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Train the recipe of the run at `path` for a few steps in portable; write `out`.

    Returns {"status", "witness", "hash"}. Raises ConfigError for a model that portable arithmetic
    does not carry, CheckpointError for a run without a best checkpoint.
    """
    run = RunDir.open(path)
    _refuse_inside(run, out)
    recipe = recipe_of(run, load_run_config(run, overrides))
    logger.info("taking %d steps of the recipe of %s in portable", NUM_STEPS, shown(run.path))
    found = _run(recipe, str(path))
    document = {
        "recipe": recipe,
        "witness": found.to_dict(),
        "made_of": run.name,
        "made_with": {"ml-core": ml_core.__version__, "torch": package_versions()["torch"]},
    }
    try:
        write_json(out, document)
    except OSError as error:
        raise RunError(cannot_write(out, error)) from error
    logger.info("witness %s in %s; check it anywhere: ml-core verify %s",
                found.hash[:12], shown(out), shown(out))  # fmt: skip
    return {"status": "written", "witness": str(out), "hash": found.hash}


def verify_witness(path: Path) -> dict[str, Any]:
    """Train the witness at `path` again; return {"status", "message", "hash", ...} for `--json`.

    Raises ConfigError for a file that is no witness, and where this machine's arithmetic fails.
    """
    document = read_json(path)
    then = Witness.from_dict(_part(document, "witness", path))
    recipe = _part(document, "recipe", path)
    if unknown := set(recipe) ^ set(DEFAULT_RECIPE):
        raise ConfigError(
            f"{path} has no witness's recipe: {', '.join(sorted(unknown))} is missing or unknown. "
            f"It needs: {', '.join(DEFAULT_RECIPE)}. Write it anew: ml-core verify RUN --witness."
        )
    now = _run(recipe, str(path))
    difference = then.first_difference(now)
    if difference is None:
        steps = len(now.losses)
        message = f"identical: {steps} portable steps, their weights and predictions, bit for bit"
    else:
        made = ", ".join(f"{k} {v}" for k, v in document.get("made_with", {}).items())
        message = (
            f"not identical: {difference}. Portable training gives the same bits on every machine: "
            f"look for another version (it was written by {made or 'one that is not recorded'}; "
            f"this is ml-core {ml_core.__version__}), then for a changed file."
        )
    logger.info("%s", message)
    status = "identical" if difference is None else "different"
    return {"status": status, "first_difference": difference, "message": message, "hash": now.hash}


def recipe_of(run: RunDir, config: Config) -> dict[str, Any]:
    """Return the run's model, optimizer, schedule, augmentation and seed as a witness's recipe.

    Its schedule goes on by NUM_STEPS steps of an epoch each, or by more to an epoch where it has
    fewer epochs. A schedule that waits for the validation is constant until then.
    """
    training = config.training
    schedule = config.scheduler.model_dump(mode="json")
    if schedule["name"] == "plateau":
        schedule = {"name": "constant"}
    return {
        "format": FORMAT,
        "seed": config.seed,
        "num_steps": NUM_STEPS,
        "batch_size": min(config.data.batch_size, LARGEST_BATCH),
        "micro_batch": training.micro_batch,
        "model": load_best(run.checkpoints_dir).model_spec,
        "optimizer": config.optimizer.model_dump(mode="json"),
        "scheduler": {
            **schedule,
            "epochs": training.epochs,
            "steps_per_epoch": -(-NUM_STEPS // training.epochs),
        },
        "augment": config.data.augment.model_dump(mode="json"),
        "clip_grad_norm": training.clip_grad_norm,
        "label_smoothing": training.label_smoothing,
    }


def _run(recipe: Mapping[str, Any], where: str) -> Witness:
    """Run the recipe; one that was written by hand may hold anything."""
    prepare_numerics("portable", None, "cpu")
    try:
        return run_witness(recipe)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"the recipe of {where} cannot be followed: {type(error).__name__}: {error}. Write "
            "the witness anew: ml-core verify RUN --witness FILE."
        ) from error


def _part(document: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    part = document.get(key)
    if not isinstance(part, dict):
        raise ConfigError(
            f"{path} is not a witness: it has no {key}. Give a run's directory, or a file that "
            "`ml-core verify RUN --witness FILE` wrote."
        )
    return part


def _refuse_inside(run: RunDir, out: Path) -> None:
    if out.resolve().is_relative_to(run.path.resolve()):
        raise ConfigError(f"{out} lies in the run, which verify leaves as it is; write elsewhere.")
