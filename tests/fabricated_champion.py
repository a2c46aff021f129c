"""A champion.json and the run that it chose, with weights of a few bytes, without any training."""

from pathlib import Path

import numpy as np
from mlflow_server import make_run
from safetensors.numpy import save_file

from ml_core.findings import Finding
from ml_core.runs import RunDir, RunRecord
from ml_core.selection.champion import Champion
from ml_core.selection.runs import best_weights_sha256

CREATED_AT = "2026-01-02T06:00:00+00:00"


def make_champion(
    parent: Path,
    *,
    run: RunDir | None = None,
    weight: float = 1.0,
    threshold: float = 0.31,
    created_at: str = CREATED_AT,
    name: str = "champion.json",
) -> Path:
    """Write parent/champion.json for `run`, a new one in an experiment named after `parent`."""
    run = run or make_run(parent, name=f"run-{weight:g}", experiment_name=parent.name)
    write_weights(run, weight)
    metric = {"value": 0.93, "low": 0.91, "high": 0.95}
    Champion(
        created_at=created_at,
        command="ml-core select runs",
        rule={"rule": "best_mean", "metric": "roc_auc"},
        run={
            "path": run.path.relative_to(parent).as_posix(),
            "name": run.name,
            "run_id": RunRecord.load(run).run_id,
            "weights_sha256": best_weights_sha256(run) or "",
            "epoch": 2,
            "seed": 42,
            "experiment_name": parent.name,
        },
        evidence={
            "split": "valid",
            "num_patches": 1500,
            "chosen_for": "the best mean roc_auc",
            "metrics": {"roc_auc": metric, "f2": {**metric, "value": None}},
        },
        runner_up=None,
        threshold={"value": threshold, "rule": {"kind": "recall", "at_least": 0.95}},
        calibration={"kind": "temperature", "temperature": 1.4},
        prior_shift=None,
        baselines={},
        data={},
        code={"commit": "0123abc", "dirty": False},
        findings=[Finding("one-seed", "warning", "trained with one seed")],
    ).save(parent / name)
    return parent / name


def write_weights(run: RunDir, weight: float) -> None:
    """Give `run` a best checkpoint, as far as anything but training looks at one."""
    folder = run.checkpoints_dir / "best"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"net.weight": np.full(4, weight, np.float32)}, folder / "model.safetensors")
    (folder / "state.json").write_text('{"model": {"name": "mlp"}}')
    (folder / "optimizer.safetensors").write_bytes(b"not sent")
