import math
import tracemalloc

import numpy as np
import pytest

from ml_core.metrics import map_resamples, resamples


def all_of(seed, num_resamples, num_patches):
    return np.concatenate(list(resamples(seed, num_resamples, num_patches)))


def test_each_resample_draws_as_many_patches_as_there_are():
    weights = all_of(seed=5, num_resamples=200, num_patches=301)
    assert weights.shape == (200, 301)
    assert (weights.sum(axis=1) == 301).all()
    assert abs(weights.mean(axis=0) - 1.0).max() < 0.4  # each patch, about once
    assert abs((weights == 0).mean() - math.exp(-1)) < 0.01
    assert len(np.unique(weights, axis=0)) == 200


def test_resamples_are_those_of_last_year():
    assert all_of(seed=7, num_resamples=3, num_patches=10).tolist() == [
        [0, 1, 2, 1, 1, 1, 1, 1, 1, 1],
        [2, 1, 1, 1, 0, 3, 0, 0, 1, 1],
        [4, 1, 1, 1, 1, 0, 1, 1, 0, 0],
    ]


def test_a_resample_depends_on_its_number_and_the_seed_alone(monkeypatch):
    many = all_of(seed=3, num_resamples=40, num_patches=64)
    assert np.array_equal(many[:7], all_of(seed=3, num_resamples=7, num_patches=64))
    assert not np.array_equal(many[:7], all_of(seed=4, num_resamples=7, num_patches=64))
    monkeypatch.setattr("ml_core.metrics.resampling.BLOCK_CELLS", 64 * 3)
    assert [len(block) for block in resamples(3, 40, 64)] == [3] * 13 + [1]
    assert np.array_equal(many, all_of(seed=3, num_resamples=40, num_patches=64))


@pytest.mark.parametrize("num_threads", [1, 2, 5, None])
def test_a_function_of_each_block_comes_back_in_order_whatever_the_threads(
    monkeypatch, num_threads
):
    monkeypatch.setattr("ml_core.metrics.resampling.BLOCK_CELLS", 64 * 3)
    found = map_resamples(lambda weights: weights[:, 5], 3, 40, 64, num_threads)
    assert [len(block) for block in found] == [3] * 13 + [1]
    assert np.array_equal(np.concatenate(found), all_of(3, 40, 64)[:, 5])


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch):
    monkeypatch.setattr("ml_core.metrics.resampling.BLOCK_CELLS", 64)

    def fail(weights):
        raise ValueError("no such metric")

    with pytest.raises(ValueError, match="no such metric"):
        map_resamples(fail, 3, 4, 64, num_threads=2)


def test_memory_does_not_grow_with_the_number_of_resamples():
    peaks = []
    for num_resamples in (200, 600):
        tracemalloc.start()
        for _ in resamples(0, num_resamples, 5000):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
