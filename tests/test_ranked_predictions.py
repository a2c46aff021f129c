"""Predictions of several ranks: together what one rank would have said, to the bit."""

import dataclasses

import numpy as np
import pytest
import torch
from ranked_processes import run_ranks
from tiny_pcam import make_patches, write_split

from ml_core.data import PCAMDataset
from ml_core.data.layout import split_paths
from ml_core.data.loader import build_loader
from ml_core.distributed import ALONE
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.predictor import predict
from ml_core.evaluation.ranked_predictions import gather_predictions
from ml_core.models import build_model

NUM_ROWS = 37
BATCH_SIZE = 8  # five batches, the last of five patches


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    labels = np.arange(NUM_ROWS) % 2
    write_split(folder, "valid", make_patches(labels), labels)
    return folder


def predict_share(ranks, folder, with_labels=True):
    """Return the bits of every column as this rank has them after gathering."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model("mlp", hidden_units=[8])
    paths = split_paths(folder, "valid")
    dataset = PCAMDataset(paths.x, paths.y, exclude=np.array([3, 20]))
    batches = build_loader(dataset, BATCH_SIZE, shuffle=False, ranks=ranks, share="batches")
    own = predict(model, batches, "cpu", split="valid") if len(batches) else None
    if own is not None and not with_labels:
        own = dataclasses.replace(own, y_true=None)
    return columns(gather_predictions(own, len(dataset), ranks))


def columns(found: Predictions):
    labels = None if found.y_true is None else found.y_true.tolist()
    y_prob, logit = found.y_prob.view(np.int64).tolist(), found.logit.view(np.int64).tolist()
    return found.split, found.index.tolist(), labels, y_prob, logit


@pytest.mark.parametrize("world_size", [2, 4, 7])  # with 7 two ranks have no batch
def test_any_number_of_ranks_predicts_the_bits_of_one_in_the_order_of_the_file(folder, world_size):
    alone = predict_share(ALONE, folder)
    assert alone[1] == [row for row in range(NUM_ROWS) if row not in (3, 20)]
    assert len(set(alone[4])) > 30  # the patches differ
    assert run_ranks(world_size, predict_share, folder) == [alone] * world_size


def test_patches_without_labels_stay_without(folder):
    alone = predict_share(ALONE, folder, False)
    assert alone[2] is None
    assert run_ranks(2, predict_share, folder, False) == [alone] * 2


def forget_a_patch(ranks, folder):
    rows = np.arange(ranks.rank, 9, 2)
    own = Predictions("valid", rows, rows % 2, rows / 9.0, rows / 9.0)
    gather_predictions(own, 10, ranks)


def test_a_patch_that_no_rank_predicted_is_noticed(folder):
    assert all(isinstance(error, AssertionError) for error in run_ranks(2, forget_a_patch, folder))
