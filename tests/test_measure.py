import h5py
import numpy as np
import pytest

from ml_core.audit.measure import collect, measure_split, num_pieces
from ml_core.data.patch_file import PatchFile
from ml_core.errors import DataError


def store(path, data, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=data, **options)
    return PatchFile(path)


def levels_of(block):
    return {"first": block.levels[:, 0, 0, 0], "corner": block.levels[:, 0, 0].astype(np.float32)}


def run(file, rows=None, num_threads=2, measures=(levels_of,)):
    rows = np.arange(len(file)) if rows is None else rows
    return collect(measure_split(file, rows, measures, num_threads=num_threads), len(rows))


@pytest.fixture
def patches():
    return np.random.default_rng(0).integers(0, 256, (700, 48, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("options", [{}, {"chunks": (7, 48, 48, 3), "compression": "gzip"}])
@pytest.mark.parametrize("num_threads", [1, 5])
def test_every_patch_is_measured_once_in_the_order_of_the_file(
    tmp_path, patches, options, num_threads, monkeypatch
):
    monkeypatch.setattr("ml_core.audit.measure._READ_BYTES", 50 * 48 * 48 * 3)
    file = store(tmp_path / "x.h5", patches, **options)
    found = run(file, num_threads=num_threads)
    np.testing.assert_array_equal(found["first"], patches[:, 0, 0, 0])
    np.testing.assert_array_equal(found["corner"], patches[:, 0, 0])
    assert num_pieces(file, np.arange(700)) == 14


def test_a_sample_of_rows_gives_what_the_whole_gives_of_them(tmp_path, patches):
    rows = np.array([0, 3, 4, 5, 90, 699])
    found = run(store(tmp_path / "x.h5", patches), rows)
    np.testing.assert_array_equal(found["corner"], patches[rows, 0, 0])


def test_bytes_are_never_out_of_range(tmp_path, patches):
    found = run(store(tmp_path / "x.h5", patches))
    assert not found["share_nan"].any() and not found["share_out_of_range"].any()


@pytest.mark.parametrize("scale", [1, 1 / 255])
def test_what_floats_hold_besides_grey_levels_is_measured_and_bent(tmp_path, patches, scale):
    stored = patches.astype(np.float32) * scale
    stored[3, :2, :24] = np.nan
    stored[4, 0, :6] = -np.inf
    stored[5, :12, :12] = 1e5
    stored[6, 0, 0] = -7 * scale
    found = run(store(tmp_path / "x.h5", stored))
    assert np.flatnonzero(found["share_nan"]).tolist() == [3, 4]
    assert found["share_nan"][3] == pytest.approx(48 / 48**2)
    assert np.flatnonzero(found["share_out_of_range"]).tolist() == [5, 6]
    assert found["share_out_of_range"][5] == pytest.approx(1 / 16)
    assert found["first"][[3, 4, 5, 6]].tolist() == [0, 0, 255, 0]
    np.testing.assert_array_equal(found["first"][7:], patches[7:, 0, 0, 0])


def test_a_file_that_is_cut_short_while_it_is_read_is_an_error_in_words(
    tmp_path, patches, monkeypatch
):
    monkeypatch.setattr("ml_core.audit.measure._READ_BYTES", 50 * 48 * 48 * 3)
    file = store(tmp_path / "x.h5", patches)

    def cut(block):
        with open(file.path, "r+b") as raw:
            raw.truncate(2048 + 300 * 48 * 48 * 3)
        return levels_of(block)

    with pytest.raises(DataError, match=r"x\.h5 is truncated, .* it was cut short"):
        run(file, num_threads=1, measures=(cut,))


def test_a_file_that_vanishes_while_it_is_read_is_an_error_in_words(tmp_path, patches, monkeypatch):
    monkeypatch.setattr("ml_core.audit.measure._READ_BYTES", 50 * 48 * 48 * 3)
    file = store(tmp_path / "x.h5", patches)

    def vanish(block):
        file.path.unlink(missing_ok=True)
        return levels_of(block)

    with pytest.raises(DataError, match=r"x\.h5 was deleted or replaced"):
        run(file, num_threads=1, measures=(vanish,))


def test_what_a_measure_raises_is_not_swallowed(tmp_path, patches):
    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(store(tmp_path / "x.h5", patches), measures=(fail,))
