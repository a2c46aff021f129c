"""The loader: what an epoch visits, in which order, and that nothing else can change it."""

import copy
import hashlib
import itertools
import subprocess
import sys
from itertools import chain

import h5py
import numpy as np
import pytest
import torch
from tiny_pcam import make_patches, write_split

from ml_core.data import PCAMDataset, get_dataloaders
from ml_core.data.layout import split_paths
from ml_core.data.loader import Batch, EpochBatches, build_loader, epoch_order
from ml_core.distributed import Ranks
from ml_core.errors import ConfigError, DataError

ORDER_PLAIN = [7, 0, 1, 6, 2, 3, 4, 5]
ORDER_BALANCED = [2, 7, 1, 7, 6, 5, 3, 6]
LABELS = (np.arange(50) % 5 == 0).astype(np.int64)  # 10 of 50 positive


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    write_split(folder, "train", make_patches(LABELS), LABELS)
    paths = split_paths(folder, "train")
    return PCAMDataset(paths.x, paths.y)


@pytest.fixture(scope="module")
def course_dir(tmp_path_factory):
    """Write 100 patches each for train and valid, 20 of them positive, as the course tests."""
    folder = tmp_path_factory.mktemp("course")
    labels = np.zeros((100, 1, 1, 1), dtype=np.int64)
    labels[80:] = 1
    for split in ("train", "valid"):
        patches = np.full((100, 96, 96, 3), 128.0, dtype=np.float32)
        patches[:, 0, 0, 0] = np.arange(100)
        write_split(folder, split, patches, labels)
    return folder


def test_an_unbalanced_epoch_is_a_permutation():
    for epoch in range(3):
        assert np.array_equal(np.sort(epoch_order(LABELS, 1, epoch, False)), np.arange(50))


def test_a_balanced_epoch_of_a_balanced_set_is_a_permutation():
    labels = np.arange(60) % 2
    for epoch in range(3):
        assert np.array_equal(np.sort(epoch_order(labels, 1, epoch, True)), np.arange(60))


@pytest.mark.parametrize("num", [50, 51])
def test_a_balanced_epoch_draws_half_from_each_class(num):
    labels = (np.arange(num) % 5 == 0).astype(np.int64)
    order = epoch_order(labels, 1, 0, True)
    assert len(order) == num
    assert labels[order].sum() == num // 2


def test_no_patch_comes_back_before_all_of_its_class_were_seen():
    for label in (0, 1):
        times = np.zeros(50, dtype=int)
        for epoch in range(7):
            order = epoch_order(LABELS, 3, epoch, True)
            np.add.at(times, order[LABELS[order] == label], 1)
            seen = times[label == LABELS]
            assert seen.max() - seen.min() <= 1, (label, epoch)


def test_the_order_is_a_function_of_seed_and_epoch():
    for balanced in (False, True):
        first = epoch_order(LABELS, 1, 2, balanced)
        assert np.array_equal(first, epoch_order(LABELS, 1, 2, balanced))
        assert not np.array_equal(first, epoch_order(LABELS, 2, 2, balanced))
        assert not np.array_equal(first, epoch_order(LABELS, 1, 3, balanced))


def test_an_order_written_down_once_stays_what_it_was():
    assert epoch_order(np.zeros(8, int), 42, 0, False).tolist() == ORDER_PLAIN
    assert epoch_order(np.array([0, 0, 0, 0, 0, 0, 1, 1]), 42, 1, True).tolist() == ORDER_BALANCED


def test_classes_are_mixed_within_an_epoch():
    labels = np.sort(np.arange(400) % 2)
    drawn = labels[epoch_order(labels, 0, 0, True)]
    assert 60 < drawn[:200].sum() < 140


def test_a_class_without_patches_cannot_be_balanced():
    with pytest.raises(DataError, match="no patch of class 1"):
        epoch_order(np.zeros(4, int), 0, 0, True)


def test_positions_within_a_batch_are_sorted_and_batches_are_random():
    batches = list(EpochBatches(LABELS, 8, shuffle=True, seed=1))
    assert [len(batch) for batch in batches] == [8] * 6 + [2]
    assert all(batch == sorted(batch) for batch in batches)
    visited = list(chain(*batches))
    assert sorted(visited) == list(range(50)) != visited


def test_a_loader_that_does_not_shuffle_keeps_file_order_and_the_last_partial_batch(dataset):
    index = torch.cat([batch.index for batch in build_loader(dataset, 8, shuffle=False)])
    assert index.tolist() == list(range(50))


def test_drop_last_drops_only_a_partial_batch():
    assert len(EpochBatches(LABELS, 8, shuffle=False, drop_last=True)) == 6
    assert len(EpochBatches(LABELS, 10, shuffle=False, drop_last=True)) == 5


def test_a_batch_is_uint8_in_channels_last_memory_and_its_parts_belong_together(dataset):
    for batch in build_loader(dataset, 8, shuffle=True, balanced=True, seed=3):
        assert isinstance(batch, Batch)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == batch.index.dtype == torch.long
        assert np.array_equal(batch.labels, LABELS[batch.index])
        for image, index in zip(batch.images, batch.index, strict=True):
            assert torch.equal(image, dataset[int(index)][0])


def test_index_is_the_row_in_the_file_and_not_the_position(dataset):
    part = copy.copy(dataset)
    part.indices, part.labels = dataset.indices[10:], dataset.labels[10:]
    (batch,) = build_loader(part, 40, shuffle=False)
    assert batch.index.tolist() == list(range(10, 50))


def batches_of(dataset, **options):
    loader = build_loader(dataset, 8, shuffle=True, balanced=True, seed=5, **options)
    found = []
    for epoch in (0, 1):
        loader.batch_sampler.set_epoch(epoch)
        found += list(loader)
    return found


def assert_same_batches(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_workers_and_prefetching_change_nothing(dataset):
    alone = batches_of(dataset)
    assert_same_batches(alone, batches_of(dataset, num_workers=1))
    assert_same_batches(alone, batches_of(dataset, num_workers=2, prefetch_factor=4))
    memory_format = batches_of(dataset, num_workers=1)[0].images
    assert memory_format.is_contiguous(memory_format=torch.channels_last)


def test_a_resumed_epoch_goes_on_where_it_stopped_without_reading_what_was_done(dataset):
    loader = build_loader(dataset, 8, shuffle=True, balanced=True, seed=5)
    loader.batch_sampler.set_epoch(3)
    whole = list(loader)
    loader.batch_sampler.set_epoch(3, start_batch=4)
    assert len(loader) == 3
    read = []
    plain = dataset.file.read
    dataset.file.read = lambda rows: read.append(len(rows)) or plain(rows)
    try:
        rest = list(loader)
    finally:
        del dataset.file.read
    assert_same_batches(whole[4:], rest)
    assert read == [8, 8, 2]
    loader.batch_sampler.set_epoch(4)
    assert len(loader) == 7


def ranked_batches(batch_size, micro_batch, world_size, **options):
    """Return for each batch the rows of each rank."""
    samplers = [
        EpochBatches(
            LABELS, batch_size, shuffle=True, micro_batch=micro_batch,
            ranks=Ranks(rank, world_size), **options,
        )
        for rank in range(world_size)
    ]  # fmt: skip
    return list(zip(*samplers, strict=True))


def put_together(rank_rows, micro_batch):
    """Return the rows of a batch, of which rank r has micro-batches r, r + world_size, ..."""
    cut = [
        [rows[start : start + micro_batch] for start in range(0, len(rows), micro_batch)]
        for rows in rank_rows
    ]
    in_turn = chain(*itertools.zip_longest(*cut, fillvalue=[]))
    return list(chain(*in_turn))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("micro_batch", [1, 4, 5, 16])
def test_the_micro_batches_of_all_ranks_in_turn_are_the_batch(world_size, micro_batch):
    alone = list(EpochBatches(LABELS, 16, shuffle=True))
    ranked = ranked_batches(16, micro_batch, world_size)
    assert [put_together(rows, micro_batch) for rows in ranked] == alone


def test_a_micro_batch_goes_to_the_rank_of_its_number_and_none_is_filled_up():
    (first, *_, last) = ranked_batches(16, 4, 3)
    assert [len(rows) for rows in first] == [8, 4, 4]
    assert [len(rows) for rows in last] == [2, 0, 0]  # 50 patches: the last batch has 2


def test_the_size_of_a_batch_is_that_of_all_ranks_together():
    batches = EpochBatches(LABELS, 16, shuffle=True, micro_batch=4, ranks=Ranks(2, 3))
    assert [batches.size_of(number) for number in range(4)] == [16, 16, 16, 2]
    assert len(batches) == batches.num_batches == 4


@pytest.mark.parametrize("start", [0, 1, 2, 5])
def test_shared_to_predict_whole_batches_go_round_and_each_is_what_it_is_alone(start):
    alone = list(EpochBatches(LABELS, 8, shuffle=False))
    found = {}
    for rank in range(3):
        batches = EpochBatches(LABELS, 8, shuffle=False, ranks=Ranks(rank, 3), share="batches")
        batches.set_epoch(0, start_batch=start)
        numbers = [number for number in range(start, 7) if number % 3 == rank]
        assert len(batches) == len(numbers)
        found |= dict(zip(numbers, batches, strict=True))
    assert [found[number] for number in range(start, 7)] == alone[start:]


def test_a_rank_without_a_micro_batch_gets_a_batch_of_no_patch(dataset):
    for num_workers in (0, 1):
        loader = build_loader(
            dataset, 50, shuffle=True, micro_batch=40, ranks=Ranks(2, 3), num_workers=num_workers
        )
        (batch,) = loader
        assert batch.images.shape == (0, 3, 96, 96) and batch.images.dtype == torch.uint8
        assert len(batch.labels) == len(batch.index) == 0


def write_layouts(folder):
    """Write the same patches flat, in compressed chunks, and as floats; return the data sets."""
    patches = make_patches(LABELS)
    found = {}
    for layout in ("flat", "chunked", "float"):
        paths = split_paths(folder / layout, "train")
        write_split(folder / layout, "train", patches, LABELS)
        with h5py.File(paths.x, "w") as file:
            if layout == "chunked":
                file.create_dataset("x", data=patches, chunks=(7, 96, 96, 3), compression="gzip")
            else:
                file["x"] = patches.astype(np.float32) if layout == "float" else patches
        found[layout] = PCAMDataset(paths.x, paths.y)
    return found


def hash_of_sequence(
    dataset, *, world_size=1, resumed_at=None, is_persistent=True, is_held=False, **options
):  # fmt: skip
    """Return a digest of (index, bytes) of every patch of two epochs, in the order of training."""
    loaders = []
    if is_held:
        dataset = copy.copy(dataset)
        dataset.hold(torch.device("cpu"))
    for rank in range(world_size):
        loader = build_loader(
            dataset, 16, shuffle=True, balanced=True, seed=5, micro_batch=4,
            ranks=Ranks(rank, world_size), **options,
        )  # fmt: skip
        if not is_persistent:
            object.__setattr__(loader, "persistent_workers", False)
        loaders.append(loader)
    digest = hashlib.sha256()
    for epoch in (1, 2):
        stops = [0, *([resumed_at] if resumed_at else []), loaders[0].batch_sampler.num_batches]
        for start, stop in itertools.pairwise(stops):  # as if stopped and started anew
            for loader in loaders:
                loader.batch_sampler.set_epoch(epoch, start_batch=start)
            for batches in itertools.islice(zip(*loaders, strict=True), stop - start):
                pieces = [list(zip(b.index.tolist(), b.images, strict=True)) for b in batches]
                for index, image in put_together(pieces, 4):
                    digest.update(index.to_bytes(8, "little") + image.numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    return write_layouts(tmp_path_factory.mktemp("layouts"))


COVERING = [  # each value of each axis, spawn once: it loads torch anew
    ("flat", {"world_size": 2}),
    ("flat", {"world_size": 4, "resumed_at": 1}),
    ("chunked", {"num_workers": 1, "prefetch_factor": 4}),
    ("float", {"num_workers": 2, "is_persistent": False, "resumed_at": 3}),
    ("float", {"world_size": 4}),
    ("float", {"world_size": 4, "is_held": True}),
    ("chunked", {"world_size": 2, "is_held": True, "resumed_at": 2}),
    ("flat", {"num_workers": 4, "prefetch_factor": 2}),
    ("chunked", {"world_size": 2, "num_workers": 1, "resumed_at": 2}),
    ("flat", {"num_workers": 1, "start_method": "spawn"}),
]


def test_the_sequence_of_patches_does_not_depend_on_how_it_is_read(layouts):
    expected = hash_of_sequence(layouts["flat"])
    for layout, options in COVERING:
        assert hash_of_sequence(layouts[layout], **options) == expected, (layout, options)


@pytest.mark.slow
def test_the_sequence_of_patches_is_one_over_every_combination(layouts):
    expected = hash_of_sequence(layouts["flat"])
    for layout, world_size, resumed_at in itertools.product(layouts, (1, 2, 4), (None, 1, 2, 3)):
        where = {"world_size": world_size, "resumed_at": resumed_at}
        assert hash_of_sequence(layouts[layout], **where) == expected, (layout, where)
        for num_workers, is_persistent, prefetch in itertools.product(
            (1, 2, 4), (True, False), (2, 4)
        ):
            how = {
                "num_workers": num_workers,
                "is_persistent": is_persistent,
                "prefetch_factor": prefetch,
            }
            assert hash_of_sequence(layouts[layout], **where, **how) == expected, (where, how)
    for num_workers, is_persistent in itertools.product((1, 2, 4), (True, False)):
        how = {"num_workers": num_workers, "is_persistent": is_persistent}
        assert hash_of_sequence(layouts["chunked"], **how, start_method="spawn") == expected, how


def add_noise_of_the_worker(patch):
    return torch.from_numpy(patch + np.random.randint(0, 9, patch.shape, dtype=np.uint8))


def test_noise_drawn_by_the_reading_process_depends_on_how_it_is_read(layouts):
    noisy = copy.copy(layouts["flat"])
    noisy.transform = add_noise_of_the_worker
    found = set()
    for options in ({}, {"num_workers": 1}, {"num_workers": 2}):
        np.random.seed(0)
        torch.manual_seed(0)
        found.add(hash_of_sequence(noisy, **options))
    assert len(found) == 3


def test_the_order_within_the_sequence_is_felt(layouts):
    loader = build_loader(layouts["flat"], 16, shuffle=True, seed=5)
    assert hash_of_sequence(layouts["flat"]) != hash_of_sequence(layouts["flat"], drop_last=True)
    orders = []
    for epoch in (1, 2):
        loader.batch_sampler.set_epoch(epoch)
        orders.append([index for batch in loader for index in batch.index.tolist()])
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def test_loading_leaves_the_global_random_state_alone(dataset):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(build_loader(dataset, 8, shuffle=True, seed=1))
    assert torch.equal(before, torch.get_rng_state())


def test_an_error_in_a_worker_reads_as_it_does_without(tmp_path):
    patches = np.full((8, 96, 96, 3), 99, dtype=np.float32)
    patches[6, 0, 0, 0] = np.nan
    write_split(tmp_path, "train", patches, np.arange(8) % 2)
    paths = split_paths(tmp_path, "train")
    dataset = PCAMDataset(paths.x, paths.y)
    said = []
    for num_workers in (0, 1):
        with pytest.raises(DataError, match="patch 6 holds NaN") as error:
            list(build_loader(dataset, 4, shuffle=False, num_workers=num_workers))
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_transform_reaches_the_batches(dataset):
    changed = copy.copy(dataset)
    changed.transform = lambda patch: torch.tensor(patch[0, 0]).float()
    (batch,) = build_loader(changed, 50, shuffle=False)
    assert batch.images.shape == (50, 3) and batch.index.tolist() == list(range(50))


def course_config(folder, **data):
    return {"data": {"data_path": str(folder), "batch_size": 40, "num_workers": 0, **data}}


def test_the_courses_loaders_give_pairs_and_a_balanced_train(course_dir):
    config = course_config(course_dir, batch_size=4)
    train, valid = get_dataloaders(config)
    for loader in (train, valid):
        images, labels = next(iter(loader))
        assert images.shape == (4, 3, 96, 96)
        assert labels.shape == (4,) and labels.dtype == torch.long
    _, labels = next(iter(get_dataloaders(course_config(course_dir))[0]))
    assert labels.sum() > 12  # 8 were expected of 80/20
    assert sum(len(labels) for _, labels in train) == 100


def test_the_courses_train_loader_has_a_new_order_each_time_and_valid_none(course_dir):
    for num_workers in (0, 1):
        train, valid = get_dataloaders(course_config(course_dir, num_workers=num_workers))
        orders = [torch.cat([images[:, 0, 0, 0] for images, _ in train]) for _ in range(3)]
        assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])
        if num_workers == 0:
            alone = orders
        assert all(torch.equal(a, b) for a, b in zip(alone, orders, strict=True))
        rows = torch.cat([images[:, 0, 0, 0] for images, _ in valid])
        assert rows.tolist() == list(range(100))


def test_the_seed_of_the_config_reaches_the_course_loader(course_dir):
    orders = []
    for seed in (0, 0, 42, None):
        config = course_config(course_dir) | ({} if seed is None else {"seed": seed})
        orders.append(torch.cat([images[:, 0, 0, 0] for images, _ in get_dataloaders(config)[0]]))
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    assert torch.equal(orders[2], orders[3])  # 42 is the default


def test_the_course_dict_may_be_partial_or_hold_more(course_dir):
    train, _ = get_dataloaders({"data": {"data_path": course_dir}})
    assert next(iter(train))[0].shape[0] == 32
    config = course_config(course_dir, filter_data=True, image_size=96) | {"model": {}, "lr": 1}
    assert len(get_dataloaders(config)) == 2
    with pytest.raises(ConfigError, match="data_path"):
        get_dataloaders({"data": {}})


def test_a_program_that_stops_early_leaves_no_worker_behind(course_dir):
    code = (
        "from ml_core.data import get_dataloaders\n"
        f"train, _ = get_dataloaders({course_config(course_dir, num_workers=2)!r})\n"
        "next(iter(train))\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr
