import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from ml_core.errors import RunError
from ml_core.evaluation.features import (
    FeatureTable,
    fit_basis,
    last_linear,
    logit_direction,
    tapped_features,
)
from ml_core.evaluation.predictor import predict
from ml_core.models import CNN, MLP


class Batch(NamedTuple):
    images: torch.Tensor
    labels: torch.Tensor | None
    index: torch.Tensor


def make_model(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "mlp":
        return MLP((3, 24, 24), hidden_units=[8, 5])
    return CNN((3, 24, 24), widths=(8, 16), average_orientations=kind == "averaged cnn")


def make_batches(num_patches: int = 7, size: int = 3) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num_patches, 3, 24, 24), generator=generator, dtype=torch.uint8)
    index = torch.arange(num_patches)
    return [
        Batch(images[i : i + size], None, index[i : i + size]) for i in range(0, num_patches, size)
    ]


def make_table(num_patches: int = 6, **changes) -> FeatureTable:
    fields = {
        "split": "valid",
        "index": np.arange(num_patches)[::-1] * 3 + 1,
        "features": np.random.default_rng(0).normal(size=(num_patches, 4)).astype(np.float32),
        "y_true": np.arange(num_patches) % 2,
        "run_id": "8f3a",
        "weights_sha256": "ab" * 32,
        "epoch": 7,
        "share_kept": 0.975,
    }
    return FeatureTable(**{**fields, **changes})


@pytest.mark.parametrize(("kind", "width"), [("mlp", 5), ("cnn", 48), ("averaged cnn", 48)])
def test_the_last_layer_makes_of_each_tapped_row_the_logit_of_that_patch(kind, width):
    model = make_model(kind)
    with tapped_features(model) as tap:
        predictions = predict(model, make_batches(), "cpu")
    features = tap.features()
    assert features.shape == (7, width) and features.dtype == np.float32
    bias = last_linear(model).bias.detach()
    logit = features @ logit_direction(model) + float(bias[1] - bias[0])
    assert logit == pytest.approx(predictions.logit, abs=1e-5)
    assert np.ptp(predictions.logit) > 1e-3  # else any row would do


def test_tapping_changes_no_bit_and_leaves_no_hook_even_after_an_error():
    model = make_model("averaged cnn")
    before = predict(model, make_batches(), "cpu").logit
    with pytest.raises(KeyError), tapped_features(model):
        assert (predict(model, make_batches(), "cpu").logit == before).all()
        raise KeyError
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_a_forward_that_failed_half_way_leaves_nothing_in_the_next_one():
    class Stumbling(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.stumbles = True

        def forward(self, rows):
            logits = self.linear(rows)
            if self.stumbles:
                raise RuntimeError
            return logits

    model = Stumbling()
    with tapped_features(model) as tap:
        with pytest.raises(RuntimeError):
            model(torch.ones(3, 2))
        model.stumbles = False
        model(torch.zeros(3, 2))
    assert (tap.features() == 0).all() and tap.features().shape == (3, 2)


def test_what_cannot_be_tapped_is_refused_in_words():
    with pytest.raises(ValueError, match=r"no last linear layer of 2 outputs.* one of 3 outputs"):
        logit_direction(nn.Linear(4, 3))
    with (
        pytest.raises(ValueError, match="takes 5,000 inputs; features are tapped of up to 4,096"),
        tapped_features(nn.Linear(5000, 2)),
    ):
        pass
    with pytest.raises(ValueError, match="but none"), tapped_features(nn.ReLU()):
        pass
    with pytest.raises(ValueError, match=r"shape \(2, 5, 4\).* one row per patch"):
        layer = nn.Linear(4, 2)
        with tapped_features(layer):
            layer(torch.ones(2, 5, 4))
    with tapped_features(nn.Linear(4, 2)) as tap, pytest.raises(RuntimeError, match="inside"):
        tap.features()


def correlated_features(num_patches: int = 400, width: int = 6) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(num_patches, width)) @ generator.normal(size=(width, width)) + 9


def share_explained(inputs: np.ndarray, values: np.ndarray) -> float:
    design = np.column_stack([inputs, np.ones(len(inputs))])
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return 1 - rest.var() / values.var()


def test_no_linear_function_of_what_is_kept_follows_the_logit():
    features, direction = correlated_features(), np.array([1.0, -2.0, 0.5, 0.0, 0.0, 3.0])
    logit = features @ direction
    along = np.outer(logit, direction) / (direction @ direction)
    # cutting the direction off is not enough: the other features still know what it said
    assert share_explained(features - along, logit) > 0.5
    assert share_explained(fit_basis(features, direction).apply(features), logit) < 1e-6


def test_the_basis_of_two_features_worked_by_hand():
    # x and y uncorrelated, the logit is x + y: S w = (4, 1), so that x' = x - 4/5 (x + y)
    features = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
    basis = fit_basis(features, np.array([1.0, 1.0]), max_width=1)
    column = basis.apply(features)[:, 0]
    expected = np.sqrt(2) * np.array([0.4, -1.2, 1.2, -0.4])  # up to the sign of the axis
    assert column * np.sign(column[0]) == pytest.approx(expected, abs=1e-6)
    assert basis.share_kept == pytest.approx(1)


def test_where_the_logit_does_not_vary_all_distances_are_kept():
    features = correlated_features()
    features[:, 0] = 4
    kept = fit_basis(features, np.eye(6)[0]).apply(features)
    distance = [
        np.linalg.norm(rows[:50, None] - rows[None, 50:90], axis=2) for rows in (features, kept)
    ]
    assert distance[1] == pytest.approx(distance[0], abs=1e-4)


def test_fewer_columns_keep_the_share_that_is_said():
    features, direction = correlated_features(), np.ones(6)
    whole, two = fit_basis(features, direction), fit_basis(features, direction, max_width=2)
    assert two.apply(features).shape == (400, 2)
    share = two.apply(features).var(axis=0).sum() / whole.apply(features).var(axis=0).sum()
    assert 0.3 < two.share_kept < 1 and two.share_kept == pytest.approx(share, abs=1e-6)
    assert whole.share_kept == pytest.approx(1)


def test_a_basis_of_what_is_no_table_of_numbers_is_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 3\) and the direction \(2,\)"):
        fit_basis(np.ones((4, 3)), np.ones(2))
    with pytest.raises(ValueError, match="not finite"):
        fit_basis(np.full((4, 3), np.nan), np.ones(3))


@pytest.mark.parametrize("y_true", [np.arange(6) % 2, None])
def test_a_saved_table_comes_back_bit_for_bit(tmp_path, y_true):
    table = make_table(y_true=y_true)
    table.save(tmp_path / "features" / "valid.parquet")
    loaded = FeatureTable.load(tmp_path / "features" / "valid.parquet")
    assert (loaded.features == table.features).all() and loaded.features.dtype == np.float32
    assert (loaded.index == table.index).all()
    assert loaded.y_true is None if y_true is None else (loaded.y_true == y_true).all()
    said = ("split", "run_id", "weights_sha256", "epoch", "share_kept")
    assert [getattr(loaded, name) for name in said] == [getattr(table, name) for name in said]


def test_rows_are_found_by_patch_in_the_order_asked_and_the_missing_named():
    table = make_table()
    assert (table.of(np.array([7, 1, 16])) == table.features[[3, 5, 0]]).all()
    with pytest.raises(RunError, match=r"lack 2 of 3 patches: index 0, 99\. .*explain stage"):
        table.of(np.array([0, 7, 99]))


def test_files_that_are_no_features_are_refused_and_the_file_named(tmp_path):
    path = tmp_path / "valid.parquet"
    with pytest.raises(RunError, match=r"valid\.parquet does not exist\. Write it with"):
        FeatureTable.load(path)
    path.write_bytes(b"PAR1 cut short")
    with pytest.raises(RunError, match="not a readable parquet file"):
        FeatureTable.load(path)
    with pytest.raises(RunError, match="more than once"):
        make_table(index=np.zeros(6, int)).save(path)
    make_table(features=np.full((6, 4), np.nan, np.float32)).save(path)
    with pytest.raises(RunError, match="24 values of them not finite"):
        FeatureTable.load(path)
    make_table(y_true=None).save(path)
    columns = pq.read_table(path)
    pq.write_table(columns.drop_columns("features"), path)
    with pytest.raises(RunError, match="lacks the columns features"):
        FeatureTable.load(path)
    ragged = pa.array([[1.0]] * 5 + [[1.0, 2.0]], pa.list_(pa.float32()))
    pq.write_table(columns.set_column(3, "features", ragged), path)
    with pytest.raises(RunError, match=r"rows of \[1, 2\] features"):
        FeatureTable.load(path)
    labels = pa.array([1, None, 0, 1, 0, 1], pa.int8())
    pq.write_table(columns.set_column(2, "y_true", labels), path)
    with pytest.raises(RunError, match="no label for 1 of 6 patches"):
        FeatureTable.load(path)


def test_errors_and_uncertainty_are_measured_without_torch():
    code = (
        "import sys, ml_core.evaluation.errors, ml_core.evaluation.uncertainty.plots;"
        "import ml_core.evaluation.features;"
        "assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
