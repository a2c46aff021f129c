"""A witness: a short portable training that is the same bits whenever it is run again."""

import json
from pathlib import Path

import pytest
import torch

from ml_core.config import Config
from ml_core.errors import ConfigError
from ml_core.models import PCAM_MEAN, PCAM_STD
from ml_core.solver import witness
from ml_core.solver.witness import DEFAULT_RECIPE, Witness, draw_patches, run_witness

CONFIG = Path(__file__).resolve().parents[1] / "experiments" / "configs" / "pcam_cnn.yaml"
SMALL = {
    **DEFAULT_RECIPE,
    "num_steps": 2,
    "batch_size": 6,
    "micro_batch": 4,
    "model": {
        **DEFAULT_RECIPE["model"],
        "input_shape": [3, 24, 24],
        "options": {
            **DEFAULT_RECIPE["model"]["options"], "widths": [8, 8], "average_orientations": False,
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_predictions():
    """Predict fewer patches: here it is not the numbers that count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(witness, "NUM_PREDICTED", 8)
        yield


@pytest.fixture(scope="module")
def small():
    return run_witness(SMALL)


def test_a_witness_is_the_same_again_and_backwards(small):
    assert run_witness(SMALL) == small
    assert run_witness(SMALL, reverse=True) == small


def test_it_does_not_read_the_state_of_torch_s_generator(small):
    torch.manual_seed(123)
    torch.rand(5)
    assert run_witness(SMALL) == small


def test_in_torch_s_own_arithmetic_it_is_another_but_near(small):
    native = run_witness(SMALL, precision="fp32")
    assert native.initial_weights == small.initial_weights
    assert native.losses != small.losses and native.final_state != small.final_state
    pairs = zip(native.losses, small.losses, strict=True)
    assert all(float.fromhex(a) == pytest.approx(float.fromhex(b), rel=1e-4) for a, b in pairs)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"clip_grad_norm": 0.01},
        {"label_smoothing": 0.1},
        {"augment": {"dihedral": True, "stain_jitter": 0.1}},
        {"optimizer": {**DEFAULT_RECIPE["optimizer"], "lr": 1e-3}},
        {"micro_batch": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_the_recipe_is_felt(small, change):
    assert run_witness({**SMALL, **change}).final_state != small.final_state


def test_predictions_do_not_depend_on_the_batch(small):
    assert small.predictions == small.predictions_one_by_one


def test_the_default_recipe_is_that_of_the_default_cnn():
    config = Config.load(CONFIG)
    spec = DEFAULT_RECIPE["model"]
    options = {key: spec[key] for key in ("name", "num_classes")} | spec["options"]
    assert {**options, "normalization": "standard"} == config.model.model_dump(mode="json")
    assert spec["preprocess"]["mean"] == list(PCAM_MEAN)
    assert spec["preprocess"]["std"] == list(PCAM_STD)
    assert DEFAULT_RECIPE["optimizer"] == config.optimizer.model_dump(mode="json")
    assert DEFAULT_RECIPE["augment"] == config.data.augment.model_dump(mode="json")
    schedule = config.scheduler.model_dump(mode="json")
    assert {**schedule, "epochs": 1, "steps_per_epoch": 4} == DEFAULT_RECIPE["scheduler"]


# ---- what is written -----------------------------------------------------------------------------


def test_a_witness_survives_json(small):
    again = Witness.from_dict(json.loads(json.dumps(small.to_dict())))
    assert again == small and again.hash == small.hash == small.to_dict()["hash"]


@pytest.mark.parametrize("missing", ["initial_weights", "losses", "final_state", "predictions"])
def test_a_file_that_is_no_witness_is_refused(small, missing):
    document = small.to_dict()
    del document[missing]
    with pytest.raises(ConfigError, match=f"no witness: '{missing}'"):
        Witness.from_dict(document)


def test_a_recipe_of_another_format_is_refused():
    with pytest.raises(ConfigError, match="format 2; this version reads format 1"):
        run_witness({**SMALL, "format": 2})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"initial_weights": "0"}, "the initial weights differ"),
        ({"losses": ("0x1.8p+0", "0x1p+0")}, "the loss of step 1 differs: "),
        ({"losses": None}, "one took 2 steps, the other 1"),
        ({"final_state": "0", "predictions": "0"}, "the weights or the optimizer state"),
        ({"predictions": "0"}, "the predictions differ"),
    ],
)
def test_the_first_difference_is_said_in_the_order_of_the_training(small, change, says):
    values = {**small.to_dict(), **change}
    if values["losses"] is None:
        values["losses"] = small.losses[:1]
    assert small.first_difference(Witness.from_dict(values)).startswith(says)
    assert small.first_difference(small) is None


# ---- patches -------------------------------------------------------------------------------------


def test_patches_are_a_function_of_the_seed_and_the_first_do_not_depend_on_how_many():
    images, labels = draw_patches(1, 8, (3, 24, 24))
    assert images.shape == (8, 3, 24, 24) and images.dtype == torch.uint8
    assert labels.tolist() == [0, 1] * 4
    assert torch.equal(draw_patches(1, 20, (3, 24, 24))[0][:8], images)
    assert not torch.equal(draw_patches(2, 8, (3, 24, 24))[0], images)


def test_the_class_is_visible_in_the_centre_only():
    images, labels = draw_patches(1, 64, (3, 24, 24))
    centre = images[:, :, 8:16, 8:16].double().mean((1, 2, 3))
    assert centre[labels == 1].max() < 90 < 100 < centre[labels == 0].min()
    edge = images[:, :, :8].double().mean((1, 2, 3))
    assert edge.min() > 110


@pytest.mark.parametrize("losses", [["none"], [0.5], 3, ["0x1p99999"]])
def test_losses_that_are_no_hexadecimal_floats_are_refused(small, losses):
    with pytest.raises(ConfigError, match="this is no witness"):
        Witness.from_dict({**small.to_dict(), "losses": losses})
