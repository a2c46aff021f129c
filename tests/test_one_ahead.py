"""Batches taken while the one before is in use: the same ones, in the same order."""

import threading

import pytest
import torch

from ml_core.data.loader import Batch
from ml_core.data.one_ahead import ahead_on_gpu, one_ahead
from ml_core.errors import DataError

SOON_S = 30.0


def taking(values):
    remaining = iter(values)
    return lambda: next(remaining, None)


def test_everything_comes_once_and_in_order():
    assert list(one_ahead(taking([]))) == []
    assert list(one_ahead(taking([1]))) == [1]
    assert list(one_ahead(taking(range(1, 100)))) == list(range(1, 100))


def test_the_next_is_taken_while_this_one_is_in_use():
    began = {number: threading.Event() for number in (1, 2, 3)}
    numbers = iter([1, 2, 3])

    def take():
        number = next(numbers, None)
        if number:
            began[number].set()
        return number

    coming = one_ahead(take)
    assert next(coming) == 1
    assert began[2].wait(SOON_S)  # nobody has asked for it
    assert not began[3].is_set()  # and no more than one is held
    assert list(coming) == [2, 3]


def test_an_error_is_raised_in_its_turn():
    def take():
        if numbers := left.pop():
            return numbers
        raise DataError("the third is bad")

    left = [None, 2, 1]
    coming = one_ahead(take)
    assert [next(coming), next(coming)] == [1, 2]
    with pytest.raises(DataError, match="the third is bad"):
        next(coming)


def test_who_leaves_early_leaves_no_thread():
    coming = one_ahead(taking(range(1, 10)))
    next(coming)
    coming.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("one ahead")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU is needed")
def test_a_batch_on_a_gpu_is_the_batch_while_the_next_ones_are_copied():
    sent = [
        Batch(torch.full((64, 3, 96, 96), number, dtype=torch.uint8), torch.arange(64), labels)
        for number in range(1, 20)
        for labels in [torch.full((64,), number)]
    ]
    batches = (Batch(*(each.pin_memory() for each in batch)) for batch in sent)
    sums = []
    for batch in ahead_on_gpu(batches, torch.device("cuda")):
        assert batch.images.device.type == "cuda"
        assert batch.labels.device.type == batch.index.device.type == "cpu"
        torch.cuda._sleep(10_000_000)  # the copy of the next overtakes what reads this one
        sums.append((batch.images.double().mean(), int(batch.index[0])))
    assert [(float(mean), number) for mean, number in sums] == [(n, n) for n in range(1, 20)]
