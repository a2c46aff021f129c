"""The memory a training needs is estimated by arithmetic that agrees with what was measured."""

import pytest

from ml_core.models import build_model
from ml_core.pipeline.parts.splits import INFERENCE_BATCH_SIZE
from ml_core.preflight import memory
from ml_core.preflight.memory import MemoryNeed, check_memory, checkpoint_bytes, estimate_memory
from ml_core.preflight.model_size import cnn_size, mlp_size

PATCH = (3, 96, 96)
CNN = cnn_size(PATCH, (32, 64, 128), 1, 2)


def num_parameters(name, shape=PATCH, **options):
    model = build_model(name, shape, **options)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("shape", [PATCH, (3, 50, 33)])
@pytest.mark.parametrize(
    "widths, blocks", [((32, 64, 128), 1), ((8,), 3), ((16, 16, 24), 2), ((64, 32), 1)]
)
def test_a_cnn_has_as_many_parameters_as_are_counted(shape, widths, blocks):
    counted = cnn_size(shape, widths, blocks, 2).num_parameters
    assert counted == num_parameters("cnn", shape, widths=widths, blocks_per_stage=blocks)


@pytest.mark.parametrize("hidden_units", [(64, 32), (1,), (16, 16, 8)])
def test_an_mlp_has_as_many_parameters_as_are_counted(hidden_units):
    counted = mlp_size(PATCH, hidden_units, 2).num_parameters
    assert counted == num_parameters("mlp", hidden_units=hidden_units)


def outputs_of(model, patches):
    """Return the numbers that each layer gives, in training."""
    given = []
    for module in model.net.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *call: given.append(call[2].numel()))
    model.train()(patches)
    return given


@pytest.mark.parametrize("side", [96, 45])
def test_what_a_cnn_keeps_and_its_largest_layer_are_those_of_the_real_one(side):
    import torch

    shape = (3, side, side)
    model = build_model("cnn", shape, widths=(32, 64, 128), blocks_per_stage=2)
    given = outputs_of(model, torch.zeros(1, *shape))
    size = cnn_size(shape, (32, 64, 128), 2, 2)
    assert size.largest == max(given)
    inputs = 2 * 3 * side * side
    # the sum of branch and shortcut is no module; pooling and the head are a few hundred numbers
    assert size.kept - inputs == pytest.approx(sum(given), rel=0.08)
    assert size.kept - inputs >= sum(given) - 2000


# Peak resident memory in MiB of `ml-core train` on real patches, readers with their shared pages
# counted once; 600 to 8,000 patches, torch 2.13 for CPUs, one thread, 2026-11-23.
MEASURED = [
    (CNN, {}, 966),
    (CNN, {"batch_size": 256}, 1209),
    (CNN, {"numerics": "elastic", "micro_batch": 32}, 929),
    (CNN, {"numerics": "portable", "micro_batch": 64}, 1000),
    (CNN, {"num_workers": 2}, 1109),
    (mlp_size(PATCH, (8,), 2), {"batch_size": 8}, 604),
    (mlp_size(PATCH, (8,), 2), {"batch_size": 512}, 738),
    (mlp_size(PATCH, (8,), 2), {"batch_size": 512, "num_workers": 3}, 971),
    (mlp_size(PATCH, (8,), 2), {"num_workers": 2}, 743),
    (mlp_size(PATCH, (64, 32), 2), {}, 642),
    (mlp_size(PATCH, (1024,), 2), {}, 1613),
    (mlp_size(PATCH, (1024,), 2), {"numerics": "elastic", "micro_batch": 32}, 1742),
    (mlp_size(PATCH, (2048, 2048), 2), {}, 3134),
    (mlp_size(PATCH, (2048,), 2), {"moments": 0}, 1907),
]


def needed(model, **changes):
    asked = {
        "moments": 2, "batch_size": 64, "micro_batch": None, "num_workers": 0,
        "numerics": "fast", "on_gpu": False,
    }  # fmt: skip
    return estimate_memory(model, **{**asked, **changes})


@pytest.mark.parametrize("model, changes, measured_mb", MEASURED)
def test_the_estimate_is_never_below_what_was_measured_and_little_above(
    model, changes, measured_mb
):
    ratio = needed(model, **changes).total_mb / measured_mb
    assert 1.0 <= ratio <= 1.25


def test_the_batch_of_inference_is_that_of_the_stages():
    assert memory.INFERENCE_BATCH_SIZE == INFERENCE_BATCH_SIZE


def test_a_checkpoint_holds_weights_and_moments_as_float32():
    assert checkpoint_bytes(mlp_size((3, 1, 1), (1,), 2), moments=2) == 3 * 4 * (3 + 1 + 2 + 2)


def test_sums_in_fixed_point_take_two_copies_of_the_weights_more():
    model = mlp_size(PATCH, (1024,), 2)
    more = needed(model, numerics="elastic").weights - needed(model).weights
    assert more == pytest.approx(2 * 4 * model.num_parameters / 2**20)


def test_on_a_gpu_activations_are_not_in_main_memory():
    on_gpu = needed(mlp_size(PATCH, (2048,), 2), on_gpu=True, batch_size=4096)
    on_cpu = needed(mlp_size(PATCH, (2048,), 2), batch_size=4096)
    assert on_gpu.patches < on_cpu.patches / 3 and on_gpu.weights < on_cpu.weights


def test_patches_that_are_kept_take_a_byte_for_each_value_and_are_told():
    kept = needed(mlp_size(PATCH, (8,), 2), num_held=262_144)
    assert kept.held == 262_144 * 27_648 / 2**20
    assert "patches kept in memory 6.75" in str(kept)
    assert kept.total_mb - needed(mlp_size(PATCH, (8,), 2)).total_mb == pytest.approx(kept.held)


NEED = MemoryNeed(base=500, weights=300, patches=200, readers=0)


@pytest.mark.parametrize(
    "asked_mb, num_tasks, level",
    [(840, 1, "error"), (900, 1, "warning"), (1200, 1, "warning"), (1300, 1, "ok"),
     (1300, 2, "error"), (None, 1, "warning")],
)  # fmt: skip
def test_less_memory_than_needed_is_an_error_and_little_to_spare_a_warning(
    asked_mb, num_tasks, level
):
    assert check_memory(NEED, asked_mb, num_tasks).level == level


def test_the_estimate_is_told_with_its_terms_and_what_to_ask_for():
    check = check_memory(NEED, 500)
    assert "0.98 GB = libraries 0.49 + weights, optimizer and checkpoint 0.29" in check.told
    assert "reader" not in check.told
    assert "--ask mem_gb=2" in check.remedy
