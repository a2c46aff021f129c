import tracemalloc

import numpy as np
import pytest
from test_features import make_table

from ml_core.errors import RunError
from ml_core.evaluation import neighbours as module
from ml_core.evaluation.neighbours import find_neighbours, nearest


def draw(num: int, width: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, width)).astype(np.float32)


def brute_force(queries, reference, k):
    distance = np.sqrt(((queries[:, None].astype(float) - reference[None]) ** 2).sum(axis=2))
    rows = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(distance, rows, axis=1)


@pytest.mark.parametrize("block_cells", [1, 1000, 2**22])
@pytest.mark.parametrize("offset", [0.0, 5000.0])
def test_the_nearest_are_those_of_all_distances_whatever_the_block(
    monkeypatch, block_cells, offset
):
    monkeypatch.setattr(module, "_BLOCK_CELLS", block_cells)
    queries, reference = draw(40) + np.float32(offset), draw(60, seed=1) + np.float32(offset)
    rows, distance = nearest(queries, reference, 4)
    expected = brute_force(queries, reference, 4)
    assert (rows == expected[0]).all()
    assert distance == pytest.approx(expected[1], abs=1e-9)


def test_repeats_are_at_distance_zero_and_come_by_row():
    reference = np.concatenate([draw(20), draw(20), draw(20)])
    rows, distance = nearest(draw(20), reference, 3)
    assert (rows == np.arange(20)[:, None] + [0, 20, 40]).all()
    assert (distance == 0).all()


def test_of_more_repeats_than_asked_for_the_first_rows_are_taken():
    reference = np.concatenate([draw(1, seed=2), np.repeat(draw(1), 300, axis=0)])
    rows, distance = nearest(draw(1), reference, 3, leave_out=np.array([2]))
    assert rows.tolist() == [[1, 3, 4]]
    assert (distance == 0).all()


def test_patches_that_the_sample_lacks_bar_no_one_from_it():
    sample = make_table(4, index=np.array([1, 3, 5, 7]))
    rest = make_table(4, index=np.array([0, 3, 6, 8]))
    nearest_of = find_neighbours(rest, sample, k=1).index[:, 0].tolist()
    assert [nearest_of[row] for row in (0, 2, 3)] == [1, 5, 7]  # their features are the same
    assert nearest_of[1] != 3


def test_within_one_split_no_patch_is_its_own_neighbour_but_its_copy_may_be():
    table = make_table()
    twin = make_table(features=np.repeat(table.features[:3], 2, axis=0))
    found = find_neighbours(twin, twin, k=5)
    assert found.index.shape == (6, 5)
    assert not (found.index == twin.index[:, None]).any()
    assert found.index[:2, 0].tolist() == twin.index[[1, 0]].tolist()
    assert (found.distance[:, 0] == 0).all()
    other = make_table(split="train", features=twin.features)
    assert (find_neighbours(twin, other).distance[:, :2] == 0).all()  # itself in another split


def test_neighbours_bring_their_label_and_where_they_are_from():
    queries = make_table()
    reference = make_table(split="train", index=np.arange(6) + 50)
    assert find_neighbours(queries, reference, k=1).of(2) == (
        {"split": "train", "index": 52, "label": 0, "distance": 0.0},
    )
    unlabelled = make_table(split="train", y_true=None)
    assert find_neighbours(queries, unlabelled, k=1).of(0)[0]["label"] is None


def test_features_of_other_weights_are_not_compared():
    with pytest.raises(RunError, match=r"weights abababababab .* of train of cdcd.*mean nothing"):
        find_neighbours(make_table(), make_table(split="train", weights_sha256="cd" * 32))
    with pytest.raises(RunError, match=r"\(4 columns\), those of train .* \(3\)"):
        find_neighbours(make_table(), make_table(split="train", features=draw(6, 3)))


def test_as_many_as_there_are_is_all_one_can_ask_for():
    assert nearest(draw(3), draw(2), 5)[0].shape == (3, 2)
    assert nearest(draw(0), draw(2), 5)[0].shape == (0, 2)
    with pytest.raises(ValueError, match="k is 0 among 2 rows"):
        nearest(draw(3), draw(2), 0)
    with pytest.raises(ValueError, match="k is 1 among 0 rows"):
        nearest(draw(1), draw(1), 1, leave_out=np.zeros(1, int))


def test_memory_does_not_grow_with_the_queries(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_CELLS", 2**16)
    queries, reference = draw(6000), draw(500, seed=1)
    tracemalloc.start()
    nearest(queries, reference, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6  # all distances at once are 24 MB
