"""dataset.json: the same data give the same bytes, and every digest is of what it says."""

import hashlib
import json
import os
import shutil

import h5py
import numpy as np
import pytest
from tiny_pcam import make_patches, write_split

from ml_core.data import read_through
from ml_core.data.layout import split_paths
from ml_core.data.versions import digests
from ml_core.data.versions.digests import digest_file
from ml_core.data.versions.manifest import Manifest, build_manifest, list_files
from ml_core.errors import DataError

NUM = 2500  # two whole groups of 1,024 and a part
PATCHES = np.random.default_rng(0).integers(0, 256, (NUM, 8, 9, 3), dtype=np.uint8)
LABELS = (np.arange(NUM) % 5 == 0).astype(np.uint8)
GROUPS = (slice(0, 1024), slice(1024, 2048), slice(2048, NUM))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def folder(tmp_path):
    write_split(tmp_path / "data", "train", PATCHES, LABELS.reshape(-1, 1, 1, 1))
    write_split(tmp_path / "data", "valid", make_patches(LABELS[:20]), LABELS[:20])
    return tmp_path / "data"


def test_every_digest_is_of_what_it_says(folder):
    paths = split_paths(folder, "train")
    found = digest_file(paths.x)
    raw = paths.x.read_bytes()
    assert (found.size, found.sha256) == (len(raw), sha256(raw))
    assert found.md5 == hashlib.md5(raw).hexdigest()
    x = found.datasets["x"]
    assert (x.shape, x.dtype) == ((NUM, 8, 9, 3), "uint8")
    assert x.groups == tuple(sha256(PATCHES[rows].tobytes()) for rows in GROUPS)
    text = "\n".join([f"uint8 ({NUM}, 8, 9, 3)", *x.groups]) + "\n"
    assert x.digest == sha256(text.encode())
    assert found.content == sha256(f"x {x.digest}\n".encode())
    y = digest_file(paths.y).datasets["y"]
    assert y.groups == tuple(sha256(LABELS[rows].tobytes()) for rows in GROUPS)


def test_data_sets_that_lie_one_after_the_other_are_kept_apart(tmp_path):
    arrays = {"a": PATCHES[:1500], "group/b": PATCHES[1500:], "c": LABELS}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    found = digest_file(tmp_path / "x.h5").datasets
    assert list(found) == ["a", "c", "group/b"]
    for name, array in arrays.items():
        pieces = (array[start : start + 1024] for start in range(0, len(array), 1024))
        assert found[name].groups == tuple(sha256(piece.tobytes()) for piece in pieces)


def test_a_file_that_is_not_hdf5_is_its_bytes(tmp_path):
    path = tmp_path / "valid_meta.csv"
    path.write_bytes(b"wsi\n" * 10)
    found = digest_file(path)
    assert found.content == found.sha256 == sha256(b"wsi\n" * 10) and found.datasets == {}
    (tmp_path / "empty.txt").touch()
    assert digest_file(tmp_path / "empty.txt").sha256 == sha256(b"")


LAYOUTS = {
    "after a user block": {"userblock_size": 1024},
    "gzip": {"compression": "gzip", "chunks": (100, 8, 9, 3)},
    "chunks across patches and groups": {"chunks": (700, 5, 4, 2), "shuffle": True},
    "one chunk": {"chunks": (NUM, 8, 9, 3)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_content_is_the_same_however_it_is_stored(folder, tmp_path, layout, monkeypatch):
    flat = digest_file(split_paths(folder, "train").x)
    options = dict(LAYOUTS[layout])
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", userblock_size=options.pop("userblock_size", 0)) as file:
        file.create_dataset("x", data=PATCHES, **options)
    monkeypatch.setattr(digests, "_SLAB_BYTES", 300 * PATCHES[0].nbytes)
    found = digest_file(path)
    assert found.content == flat.content and found.datasets == flat.datasets
    assert found.sha256 != flat.sha256


def test_blocks_need_not_end_where_groups_or_patches_do(folder, monkeypatch):
    flat = digest_file(split_paths(folder, "train").x)
    monkeypatch.setattr(read_through, "BLOCK_BYTES", 10_007)
    assert digest_file(split_paths(folder, "train").x) == flat


def test_one_value_one_dtype_or_one_shape_makes_another_content(folder, tmp_path):
    contents = {digest_file(split_paths(folder, "train").x).content}
    other = PATCHES.copy()
    other[2047, 7, 8, 2] ^= 1
    for data in (other, PATCHES.astype(np.int8), PATCHES.reshape(NUM, 9, 8, 3), PATCHES[:-1],
                 PATCHES.astype("<f4"), PATCHES.astype(">f4")):  # fmt: skip
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["x"] = data
        contents.add(digest_file(tmp_path / "x.h5").content)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["z"] = PATCHES
    contents.add(digest_file(tmp_path / "x.h5").content)
    assert len(contents) == 8


def test_text_in_a_file_is_part_of_its_content(tmp_path):
    contents = set()
    for text in ("a", "b"):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["x"], file["name"] = PATCHES[:3], text
        contents.add(digest_file(tmp_path / "x.h5").content)
    assert len(contents) == 2


@pytest.mark.parametrize("shape", [(0, 8, 9, 3), (3, 0)])
def test_a_data_set_without_values_has_no_groups(tmp_path, shape):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.zeros(shape, np.uint8)
        file.create_dataset("grows", shape, np.uint8, maxshape=(None,) * len(shape))
    found = digest_file(tmp_path / "x.h5").datasets
    assert found["x"].groups == found["grows"].groups == ()


def test_the_same_data_give_the_same_bytes(folder, tmp_path):
    (folder / "notes.txt").write_text("x")
    copy = tmp_path / "elsewhere"
    for path in sorted(folder.iterdir(), reverse=True):
        copy.mkdir(exist_ok=True)
        shutil.copyfile(path, copy / path.name)
    os.utime(copy / "notes.txt", (1, 1))
    build_manifest(folder).save(tmp_path / "a.json")
    build_manifest(copy).save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_version_is_of_names_and_content_only(folder, tmp_path):
    first = build_manifest(folder)
    assert len(first.version) == 12
    assert build_manifest(folder, note="of today").version == first.version
    assert Manifest(dict(reversed(first.files.items()))).version == first.version
    path = split_paths(folder, "train").x
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=PATCHES, compression="gzip")
    repacked = build_manifest(folder)
    assert repacked.version == first.version
    assert repacked.files[path.name].sha256 != first.files[path.name].sha256
    path.rename(path.with_name("other.h5"))
    assert build_manifest(folder).version != first.version


def test_a_manifest_comes_back_as_it_was(folder, tmp_path):
    manifest = build_manifest(folder, note="as downloaded")
    manifest.save(tmp_path / "m.json")
    assert Manifest.load(tmp_path / "m.json") == manifest
    raw = json.loads((tmp_path / "m.json").read_text())
    assert list(raw) == ["format", "version", "note", "splits", "files"]
    assert raw["splits"]["train"] == {
        "patches": NUM, "shape": [8, 9, 3], "dtype": "uint8", "labels": {"0": 2000, "1": 500},
    }  # fmt: skip


def test_an_audit_beside_the_data_is_no_part_of_them(folder):
    before = build_manifest(folder).version
    (folder / "audit" / "quick").mkdir(parents=True)
    (folder / "audit" / "audit.json").write_text("{}")
    (folder / "audit" / "quick" / "audit.json").write_text("{}")
    assert build_manifest(folder).version == before
    (folder / "sub" / "audit").mkdir(parents=True)
    (folder / "sub" / "audit" / "a.csv").write_text("")  # another folder of that name is data
    assert "sub/audit/a.csv" in list_files(folder)


def test_hidden_unfinished_and_own_files_are_not_data(folder):
    (folder / "sub" / ".git").mkdir(parents=True)
    for name in (".hidden", "a.part", "b.tmp", "dataset.json", "sub/.git/x", "sub/dataset.json"):
        (folder / name).write_text("x")
    (folder / "link.csv").symlink_to(folder / "a.part")
    expected = {f"camelyonpatch_level_2_split_{s}_{p}.h5" for s in ("train", "valid") for p in "xy"}
    assert list_files(folder) == sorted(expected | {"link.csv", "sub/dataset.json"})
    out = folder / "my.json"
    build_manifest(folder).save(out)
    assert out.name not in build_manifest(folder, leave_out=[out]).files


def test_links_to_folders_are_left_out_aloud_and_pipes_are_not_waited_for(folder, caplog):
    os.mkfifo(folder / "pipe")
    (folder / "again").symlink_to(folder)
    assert len(list_files(folder)) == 4
    assert "again is a link to a folder and is left out" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw.update(version="0"), "says version 0, but its files make"),
        (lambda raw: raw.update(format=2), "not a manifest of format 1"),
        (lambda raw: raw.pop("files"), "not a manifest: files"),
        (lambda raw: raw["files"].pop("a.txt"), "it was edited, or merged"),
        (lambda raw: raw["files"].update({"../b": raw["files"]["a.txt"]}), "names '../b'"),
        (lambda raw: raw["files"].update({"/b": raw["files"]["a.txt"]}), "names '/b'"),
        (lambda raw: raw["files"]["a.txt"].update(size="many"), r"not a manifest: files\.a\.txt"),
    ],
)
def test_an_edited_manifest_is_refused(tmp_path, change, said):
    (tmp_path / "a.txt").write_text("x")
    path = tmp_path / "dataset.json"
    build_manifest(tmp_path).save(path)
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match=said):
        Manifest.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "<<<<<<< HEAD\n{}"])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match="ml-core data manifest"):
        Manifest.load(tmp_path / "dataset.json")


def test_a_manifest_that_cannot_be_written_names_the_place(folder):
    with pytest.raises(DataError, match=r"cannot be written: .*--out"):
        build_manifest(folder).save(split_paths(folder, "train").x / "m.json")


def test_what_cannot_be_read_is_a_named_error(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        build_manifest(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no file"):
        build_manifest(tmp_path)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataError, match=r"x\.h5 is truncated or damaged"):
        build_manifest(tmp_path)
    (tmp_path / "x.h5").unlink()
    (tmp_path / "dangling.csv").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"dangling\.csv is missing, or vanished"):
        build_manifest(tmp_path)


def test_a_chunk_that_is_damaged_is_named_with_its_rows(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", data=PATCHES, chunks=(500, 8, 9, 3), fletcher32=True)
        offset = data.id.get_chunk_info(2).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"rows 0 to 2,499 of 'x' cannot be read"):
        digest_file(path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(1000))

    class Meddler:
        def update(self, block):
            with open(path, "ab") as file:
                file.write(b"more")

    with pytest.raises(DataError, match="was changed while it was read"):
        read_through.read_through(path, [Meddler()])


def test_little_of_a_large_file_is_held_at_once(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=PATCHES, chunks=(10, 8, 9, 3))
    monkeypatch.setattr(digests, "_SLAB_BYTES", 50 * PATCHES[0].nbytes)
    sizes = []
    plain = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__",
        lambda self, key: (sizes.append(key.stop - key.start), plain(self, key))[1],
    )  # fmt: skip
    digest_file(path)
    assert max(sizes) == 50 and len(sizes) == 50


def test_real_patches_have_a_small_manifest(real_pcam, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for part in ("x", "y"):
        path = getattr(split_paths(real_pcam, "valid"), part)
        (folder / path.name).symlink_to(path)
    manifest = build_manifest(folder)
    manifest.save(tmp_path / "m.json")
    assert (tmp_path / "m.json").stat().st_size < 3000
    assert manifest.splits["valid"].patches == 1500
    with h5py.File(split_paths(real_pcam, "valid").x) as file:
        expected = sha256(file["x"][1024:].tobytes())
    assert manifest.files[split_paths("", "valid").x.name].datasets["x"].groups[1] == expected
