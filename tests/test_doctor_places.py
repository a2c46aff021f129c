"""Data are looked at by their headers; every place that is written to is really tried."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_pcam import make_patches, write_split, write_tiny_pcam

from ml_core.data.layout import split_paths
from ml_core.data.versions.manifest import MANIFEST_NAME, build_manifest
from ml_core.preflight.clock import check_clock
from ml_core.preflight.data import check_audited, check_data, check_findings
from ml_core.preflight.file_systems import Mount, check_shared, mount_of, parse_mounts, read_mounts
from ml_core.preflight.outputs import check_outputs
from ml_core.preflight.space import Quota, check_space, parse_mmlsquota, parse_quota

SPLITS = ("train", "valid")


def only(checks):
    (check,) = checks
    return check


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- data --------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    return write_tiny_pcam(tmp_path / "data", 16, 8)


def data_told(folder):
    return check_data(folder, SPLITS, (96, 96))[0]


def test_whole_data_are_one_line_with_their_numbers(data):
    checks, rows = check_data(data, SPLITS, (96, 96))
    assert only(checks).level == "ok" and "16 train, 8 valid" in only(checks).told
    assert rows == {"train": 16, "valid": 8}


def test_a_folder_that_is_not_there_says_whence_paths_are_relative(tmp_path):
    check = only(data_told(tmp_path / "data" / "pcam"))
    assert check.level == "error"
    assert f"no folder {tmp_path}/data/pcam (there is {tmp_path})" in check.told
    assert "relative to the config's folder" in check.remedy


def test_each_missing_file_is_told_at_once(data):
    for split in SPLITS:
        split_paths(data, split).x.unlink()
    checks = data_told(data)
    assert [check.level for check in checks] == ["error", "error"]
    assert all("is missing" in check.told for check in checks)


def test_patches_of_another_size_and_labels_of_one_class_are_errors(data):
    write_split(data, "valid", make_patches([1, 1])[:, :64, :64], np.array([1, 1]))
    told = [check.told for check in data_told(data) if check.level == "error"]
    assert "patches of 64 x 64 pixels" in told[0]
    assert "all labels are 1" in told[1]


def test_slow_storage_is_a_warning(data):
    patches = make_patches([0, 1]).astype(np.float32)
    write_split(data, "valid", patches, np.array([0, 1]))
    levels = {check.level: check for check in data_told(data)}
    assert set(levels) == {"ok", "warning"}
    assert "float32" in levels["warning"].told and "data pack" in levels["warning"].remedy


def test_a_file_of_another_size_than_recorded_is_an_error(data):
    build_manifest(data).save(data / MANIFEST_NAME)
    assert only(data_told(data)).level == "ok"
    write_split(data, "valid", make_patches([0, 1]), np.array([0, 1]))
    wrong = [check for check in data_told(data) if check.level == "error"]
    assert "camelyonpatch_level_2_split_valid_x.h5" in wrong[0].told
    assert "dataset.json records" in wrong[0].told


def audited(folder, rows_now, audited_at="2026-01-01T00:00:00+00:00"):
    return check_audited(
        folder, SPLITS, audited_at=audited_at, verdict="full, 0 errors",
        rows_then={"train": 16, "valid": 8}, rows_now=rows_now,
    )  # fmt: skip


def test_an_audit_of_other_patches_is_a_warning_by_number_or_by_time(data):
    rows = {"train": 16, "valid": 8}
    for split in SPLITS:
        for path in (split_paths(data, split).x, split_paths(data, split).y):
            os.utime(path, (0, 0))
    assert audited(data, rows).level == "ok"
    assert "there are 9" in audited(data, {**rows, "valid": 9}).told
    os.utime(split_paths(data, "valid").y)
    assert "valid_y.h5 changed after it" in audited(data, rows).told


@pytest.mark.parametrize(
    "policy, mode, can_be_left_out, level",
    [
        ("refuse", "full", True, "error"), ("exclude", "full", True, "ok"),
        ("exclude", "full", False, "error"), ("exclude", "quick", True, "error"),
        ("ignore", "full", True, "warning"), ("refuse", "quick", False, "error"),
    ],
)  # fmt: skip
def test_an_audits_errors_end_a_job_as_the_policy_says(policy, mode, can_be_left_out, level):
    checks = check_findings(
        ["3 patches hold NaN."], policy=policy, mode=mode, can_be_left_out=can_be_left_out,
        page=Path("audit.html"),
    )  # fmt: skip
    assert only(checks).level == level


def test_an_audit_without_errors_needs_no_policy():
    assert not check_findings(
        [], policy="refuse", mode="full", can_be_left_out=True, page=Path("audit.html")
    )


# ---- outputs -----------------------------------------------------------------------------------


def test_places_that_can_be_written_are_left_as_they_were(tmp_path):
    database = tmp_path / "mlflow.db"
    database.write_text("rows")
    places = {"output_dir": tmp_path / "a" / "b", "runs": tmp_path / "a"}
    check = only(check_outputs(places, {"tracking.mlflow_uri": database}, {"ledger": tmp_path}))
    assert check.level == "ok" and str(tmp_path / "a" / "b") in check.told
    assert names(tmp_path) == ["mlflow.db"] and database.read_text() == "rows"


def test_every_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    checks = check_outputs(
        {"output_dir": tmp_path / "taken" / "runs", "jobs": Path("/proc/jobs")},
        {"tracking.mlflow_uri": tmp_path / "taken" / "mlflow.db"},
        {"data.ledger_dir": tmp_path / "taken"},
    )
    assert [check.level for check in checks] == ["error", "error", "error", "warning"]
    assert "output_dir: cannot write" in checks[0].told and "Not a directory" in checks[0].told
    assert "jobs: cannot write /proc/jobs" in checks[1].told


def test_a_full_disk_is_seen_although_folders_can_still_be_made(small_disk):
    with open(small_disk / "all of it", "wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        check = only(check_outputs({"output_dir": small_disk / "runs"}, {}, {}))
    assert "No space left on device" in check.told
    assert names(small_disk) == ["all of it"]


def test_a_database_that_cannot_be_opened_for_writing_is_an_error(tmp_path):
    check = only(check_outputs({}, {"tracking.mlflow_uri": tmp_path}, {}))
    assert check.level == "error" and "Is a directory" in check.told


# ---- space -------------------------------------------------------------------------------------


def test_too_little_room_for_the_checkpoints_is_an_error(small_disk):
    assert check_space(small_disk / "runs", 300 * 1024)[0].level == "error"
    assert check_space(small_disk / "runs", 100 * 1024)[0].level == "warning"
    assert check_space(small_disk / "runs", 10 * 1024)[0].level == "ok"


def test_a_quota_counts_before_the_disk(tmp_path, monkeypatch):
    (tmp_path / "lfs").write_text(
        '#!/bin/sh\nfor last; do :; done\necho "      $last"\n'
        "echo '              1048576*      0 1049600       -     999       0    1000       -'\n"
    )
    (tmp_path / "lfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    room, files = check_space(tmp_path, 2 * 2**20)
    assert room.level == "error" and "1 MB of your quota are free" in room.told
    assert "room for 1 more files of your quota" in files.told


@pytest.mark.parametrize(
    "text, quota",
    [
        # quota -w -p, with the grace of a limit that is passed
        (
            "Disk quotas for user ada (uid 1000): \n"
            "     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace\n"
            "home:/export/ada 204800* 102400  307200 604800    2000       0       0       0 \n",
            Quota(204800 * 1024, 307200 * 1024, 2000, None),
        ),
        ("Disk quotas for user ada (uid 1000): none\n", None),
        ("", None),
    ],
)
def test_what_quota_prints_is_read(text, quota):
    assert parse_quota(text) == quota


def test_what_mmlsquota_prints_is_read():
    text = (
        "mmlsquota::HEADER:version:reserved:reserved:filesystemName:quotaType:id:name:blockUsage:"
        "blockQuota:blockLimit:blockInDoubt:blockGrace:filesUsage:filesQuota:filesLimit:\n"
        "mmlsquota::0:1:::home:USR:1000:ada:1024:4096:8192:0:none:10:0:0:\n"
    )
    assert parse_mmlsquota(text) == Quota(1024 * 1024, 8192 * 1024, 10, None)


# ---- disks of one machine ----------------------------------------------------------------------

MOUNTS = (
    "/dev/sda1 / xfs rw 0 0\n"
    "nas:/users /users nfs4 rw 0 0\n"
    "gpfs /shared gpfs rw 0 0\n"
    "tmpfs /users/a/my\\040ram tmpfs rw 0 0\n"
)


def test_the_longest_mount_holds_a_path_and_blanks_in_it_are_read():
    mounts = parse_mounts(MOUNTS)
    assert mount_of(Path("/users/a/my ram/x"), mounts) == Mount(Path("/users/a/my ram"), "tmpfs")
    assert mount_of(Path("/users2"), mounts).kind == "xfs"
    assert mount_of(Path("/"), read_mounts()) is not None


def test_what_lies_on_a_disk_of_this_machine_is_named_with_the_disk():
    paths = {"Python": Path("/opt/venv"), "data.data_path": Path("/shared/data"),
             "output_dir": Path("/tmp/runs"), "ml_core": Path("/users/a/code")}  # fmt: skip
    check = only(check_shared(paths, parse_mounts(MOUNTS)))
    assert check.level == "warning"
    assert "Python (/opt/venv) on / (xfs); output_dir (/tmp/runs) on /tmp." in check.told
    assert "gpfs" not in check.told and "ml_core" not in check.told


# ---- clock -------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_s, level", [(0, "ok"), (61, "warning"), (-61, "warning")])
def test_a_clock_that_is_a_minute_off_is_told(tmp_path, off_s, level):
    checks = check_clock(tmp_path / "runs", lambda: time.time() - off_s, ask_slurm=False)
    assert only(checks).level == level
    assert names(tmp_path) == []
    if off_s > 0:
        assert "the file system by +61 s" in only(checks).told


def test_the_controllers_clock_is_asked_of_slurm(tmp_path, monkeypatch):
    (tmp_path / "scontrol").write_text(
        "#!/bin/sh\necho 'Configuration data as of 2026-11-23T00:21:23'\n"  # as 22.05 prints it
    )
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    check = only(check_clock(tmp_path, time.time, ask_slurm=True))
    assert check.level == "warning" and "Slurm's controller by" in check.told
