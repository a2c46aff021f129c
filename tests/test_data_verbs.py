"""data manifest, verify, stage and download as the command line calls them."""

import dataclasses
import gzip
import hashlib
import http.server
import json
import logging
import threading
from pathlib import Path

import h5py
import pytest
from tiny_pcam import write_tiny_pcam

from ml_core.data.layout import split_paths
from ml_core.data.transfer.file_system import network_file_system
from ml_core.data.transfer.patience import Patience
from ml_core.data.versions.official import OFFICIAL_FILES
from ml_core.errors import DataError
from ml_core.pipeline import data_stage as data_stage_module
from ml_core.pipeline.data_download import data_download
from ml_core.pipeline.data_manifest import data_manifest
from ml_core.pipeline.data_stage import data_stage
from ml_core.pipeline.data_verify import data_verify

VALID_X = split_paths("", "valid").x.name
TRAIN_X = split_paths("", "train").x.name


@pytest.fixture
def folder(tmp_path):
    return write_tiny_pcam(tmp_path / "pcam", 40, 20)


@pytest.fixture(autouse=True)
def lines(caplog):
    """What the user sees."""
    caplog.set_level(logging.INFO, "ml_core")
    return caplog


def as_official(folder):
    """Return records that call the files of `folder` official, and what a server would hold."""
    records, served = [], {}
    for file in OFFICIAL_FILES:
        path = folder / file.name
        if path.exists():
            data = path.read_bytes()
            archive = gzip.compress(data, 1, mtime=0)
            served[file.archive_name] = archive
            file = dataclasses.replace(
                file,
                md5=hashlib.md5(data).hexdigest(),
                unpacked_size=len(data),
                archive_md5=hashlib.md5(archive).hexdigest(),
                archive_size=len(archive),
            )
        records.append(file)
    return records, served


def test_manifest_then_verify(folder, lines):
    made = data_manifest(folder, note="first")
    assert json.loads((folder / "dataset.json").read_text())["version"] == made["version"]
    assert made["splits"]["train"] == {"patches": 40, "labels": {"0": 20, "1": 20}}
    assert "train: 40 patches: 20 with label 0, 20 with label 1" in lines.text
    checked = data_verify(folder)
    assert checked["version"] == made["version"]
    assert set(checked["files"].values()) == {"ok"} and len(checked["files"]) == 4
    json.dumps([made, checked])


def test_a_manifest_elsewhere_and_of_another_version(folder, tmp_path, lines):
    out = tmp_path / "versions" / "mine.json"
    first = data_manifest(folder, out)["version"]
    assert not (folder / "dataset.json").exists()
    with h5py.File(folder / TRAIN_X, "r+") as file:
        file["x"][0] = 0
    with pytest.raises(DataError, match=rf"version {first}\): 1 file is wrong, 3 right"):
        data_verify(folder, out)
    assert (out.parent / ".dataset.verified.json").parent.is_dir()
    data_manifest(folder, out)
    assert f"It was version {first} before" in lines.text
    data_verify(folder, out)


def test_a_manifest_of_another_name_does_not_count_itself(folder):
    mine = folder / "mine.json"
    first = data_manifest(folder, mine)
    assert data_manifest(folder, mine) == first and first["num_files"] == 4
    assert set(data_verify(folder, mine)["files"].values()) == {"ok"}


def test_everything_that_is_wrong_is_in_one_message(folder):
    data_manifest(folder)
    split_paths(folder, "train").y.unlink()
    with h5py.File(folder / TRAIN_X, "r+") as file:
        file["x"][39] = 0
    (folder / VALID_X).write_bytes(b"")
    with pytest.raises(DataError) as error:
        data_verify(folder)
    message = str(error.value)
    assert "3 files are wrong, 1 right" in message
    assert "rows 0 to 39 (1 group of 1,024) differ" in message
    assert "is empty (0 bytes)" in message and "missing" in message
    assert "ml-core data manifest DIR" in message


def test_swapped_official_files_are_called_that(folder):
    records, _ = as_official(folder)
    for part in ("x", "y"):
        train, valid = (getattr(split_paths(folder, split), part) for split in ("train", "valid"))
        train.rename(folder / "aside")
        valid.rename(train)
        (folder / "aside").rename(valid)
    # y of both splits alternates: only their lengths differ
    with pytest.raises(DataError) as error:
        data_verify(folder, official=records)
    message = str(error.value)
    assert "official checksums of PCam: 4 files are wrong, 0 right" in message
    assert "The files of train and valid are swapped: exchange their names." in message
    assert "record the new version" not in message


def test_official_files_are_right_without_a_manifest(folder):
    checked = data_verify(folder, official=as_official(folder)[0])
    assert checked["against"] == "official" and checked["version"] is None
    assert sorted(set(checked["files"].values())) == ["absent", "ok"]


def test_synthetic_data_without_a_manifest_are_told_to_get_one(folder):
    with pytest.raises(DataError, match=r"not the official file[\s\S]*ml-core data manifest"):
        data_verify(folder)


def test_the_state_may_be_kept_elsewhere(folder, tmp_path):
    data_manifest(folder)
    (tmp_path / "state").mkdir()
    data_verify(folder, state_dir=tmp_path / "state")
    assert not (folder / ".dataset.verified.json").exists()


def test_a_manifest_that_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json does not exist\. Make it"):
        data_verify(folder, tmp_path / "nowhere.json")


def test_stage_says_what_to_train_from(folder, tmp_path, lines):
    data_manifest(folder)
    staged = data_stage(folder, tmp_path / "local")
    assert f"--set data.local_copy={tmp_path / 'local'}" in lines.text
    assert len(staged["copied"]) == 5 and staged["reused"] == []
    assert data_verify(tmp_path / "local")["files"] == dict.fromkeys(
        sorted(name for name in staged["copied"] if name != "dataset.json"), "ok"
    )
    assert data_stage(folder, tmp_path / "local")["copied"] == []


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
/dev/sdb1 /data/local\\040disk xfs rw 0 0
server:/data /data nfs4 rw 0 0
"""


def test_a_folder_on_the_network_is_recognised(tmp_path):
    (tmp_path / "mounts").write_text(MOUNTS)
    for place, kind in {
        "/data/pcam": "nfs4",
        "/data": "nfs4",
        "/database": None,
        "/data/local disk/pcam": None,
        "/tmp/pcam": None,
    }.items():
        assert network_file_system(Path(place), tmp_path / "mounts") == kind
    assert network_file_system(Path("/data"), tmp_path / "nowhere") is None
    assert network_file_system(tmp_path) is None


def test_staging_to_the_network_is_warned_of(folder, tmp_path, lines, monkeypatch):
    monkeypatch.setattr(data_stage_module, "network_file_system", lambda path: "nfs4")
    data_stage(folder, tmp_path / "shared")
    assert "is on nfs4, which is shared over the network" in lines.text


def test_download_then_verify(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    records, served = as_official(folder)
    records = [file for file in records if file.archive_name in served]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = served[self.path.removeprefix("/files/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    new = tmp_path / "new"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/files/"
        patience = Patience(num_attempts=1, sleep=lambda _: None)
        got = data_download(new, ["valid"], base_url=url, official=records, patience=patience)
        server.shutdown()
        thread.join()
    assert got["fetched"] == [VALID_X, split_paths("", "valid").y.name]
    assert (new / VALID_X).read_bytes() == (folder / VALID_X).read_bytes()
    assert data_verify(new, official=records)["files"][VALID_X] == "ok"


def test_an_unknown_split_is_refused_before_anything_is_asked(tmp_path):
    with pytest.raises(DataError, match=r"unknown split 'val'.*Did you mean 'valid'"):
        data_download(tmp_path, ["val"])
    with pytest.raises(DataError, match="no split to download"):
        data_download(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
