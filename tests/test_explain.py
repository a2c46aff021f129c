"""`explain` on runs that are not the usual one: of train, on wide patches, and what it refuses."""

import numpy as np
import pytest
import torch
from tiny_champion import copy_tiny, train_tiny, write_champion
from tiny_pcam import make_patches, write_config, write_split

from ml_core.config import Config
from ml_core.errors import RunError
from ml_core.evaluation.calibration import Calibration
from ml_core.evaluation.predictions import Predictions
from ml_core.pipeline import explain as stage
from ml_core.pipeline.evaluate import evaluate
from ml_core.pipeline.explain import explain
from ml_core.pipeline.train import train
from ml_core.runs import RunDir, read_json

QUICK = ("evaluation.probe_patches=100", "evaluation.saliency_patches=16")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("explained"))


@pytest.fixture
def run(original, tmp_path):
    return copy_tiny(original, tmp_path / "mine")


def test_train_is_explained_like_any_split(run):
    evaluate(run.path, "train")
    told = explain(run.path, "train", QUICK)
    assert told["explain"].endswith("explain-train.json")
    content = read_json(run.explain_path("train"))
    assert content["split"] == "train" and content["n"] == 96
    assert content["robustness"]["n"] == content["visibility"]["n"] == 96
    assert run.features_path("train").is_file()


def test_patches_that_are_not_square_are_explained(tmp_path):
    for seed, (split, num) in enumerate({"train": 48, "valid": 32}.items()):
        labels = np.arange(num) % 2
        patches = make_patches(labels, seed)[:, 24:72, 16:80]  # 48 x 64, the tumour in the middle
        write_split(tmp_path / "data", split, patches, labels.reshape(-1, 1, 1, 1))
    path = write_config(
        tmp_path / "config.yaml",
        tmp_path / "data",
        data={"input_shape": [3, 48, 64], "augment": {"dihedral": False}},
    )
    made = train(Config.load(path), command="ml-core train config.yaml")
    wide = RunDir.open(made["runs"][0]["run"])
    evaluate(wide.path)
    explain(wide.path, "valid", QUICK)
    content = read_json(wide.explain_path("valid"))
    assert content["saliency"]["centre"]["box"] == [16, 32, 21, 42]
    robustness = content["robustness"]
    rotation = next(curve for curve in robustness["curves"] if curve["name"] == "rotation")
    assert [point["strength"] for point in rotation["points"]] == [0, 180]
    assert robustness["shape"] == [48, 64]
    assert "no-quarter-turns" in [finding["id"] for finding in robustness["findings"]]


def test_a_champion_is_scored_by_its_raw_logits_and_called_by_its_calibration(run):
    """An isotonic calibration that is flat almost everywhere leaves the ROC-AUC as it was."""
    flat = Calibration("isotonic", knots=((100.0, 0.25), (101.0, 0.75)))
    champion = write_champion(run, calibration=flat.to_dict())
    explain(run.path, "valid", QUICK)
    raw = read_json(run.explain_path("valid"))
    explain(champion, "valid", QUICK)
    calibrated = read_json(run.explain_path("valid"))
    assert calibrated["threshold"] == 0.3
    auc = [each["robustness"]["curves"][2]["points"][5]["metrics"] for each in (raw, calibrated)]
    assert auc[0]["roc_auc"] == auc[1]["roc_auc"]
    assert auc[1]["recall"]["value"] == 0 and auc[1]["specificity"]["value"] == 1
    whole = [each["visibility"]["views"]["whole"]["metrics"] for each in (raw, calibrated)]
    assert whole[0]["roc_auc"] == whole[1]["roc_auc"]
    assert whole[1]["recall"]["value"] == 0 and whole[1]["specificity"]["value"] == 1


def test_a_layer_that_cannot_be_drawn_anew_costs_the_shares_and_nothing_else(run, monkeypatch):
    load = stage.load_trained

    def load_with_own_weights(*arguments):
        trained = load(*arguments)
        trained.model.scale = torch.nn.ParameterList([torch.zeros(1)])
        return trained

    monkeypatch.setattr(stage, "load_trained", load_with_own_weights)
    explain(run.path, "valid", QUICK)
    content = read_json(run.explain_path("valid"))
    methods = content["saliency"]["methods"]
    assert "scale (ParameterList)" in methods["occlusion"]["why_not"]
    assert content["visibility"]["views"] and content["robustness"]["curves"]


def test_one_patch_alone_is_refused_in_words(run):
    path = run.predictions_path("valid")
    table = Predictions.load(path)
    one = {name: getattr(table, name)[:1] for name in ("index", "y_true", "y_prob", "logit")}
    Predictions(
        "valid", **one, run_id=table.run_id, weights_sha256=table.weights_sha256, epoch=table.epoch
    ).save(path)
    with pytest.raises(RunError, match=r"cannot be explained: there are 1 patches .* at least two"):
        explain(run.path, "valid", QUICK)
    assert not run.explain_path("valid").exists()
