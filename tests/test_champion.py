"""champion.json: what it holds comes back, what it chose is checked, and nothing is lost."""

import dataclasses
import errno
import json
import os
import shutil

import pytest
from fabricated_candidates import fabricate_candidate, write_weights

from ml_core.errors import RunError
from ml_core.findings import Finding
from ml_core.runs import RunRecord, read_json, write_json
from ml_core.selection.champion import Champion, freeze, name_run, sha256_of_champion
from ml_core.selection.runs import read_candidates


@pytest.fixture
def run(tmp_path):
    return fabricate_candidate(tmp_path / "runs", 3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "champion.json"


@pytest.fixture
def champion(run, path):
    return champion_of(run, path)


def champion_of(run, path, **changes) -> Champion:
    (candidate,), _ = read_candidates([run])
    fields = {
        "created_at": "2026-01-02T03:04:05+00:00",
        "command": "ml-core select runs/*",
        "rule": {"rule": "best_mean", "metric": "roc_auc"},
        "run": name_run(candidate, path),
        "evidence": {"metrics": {"roc_auc": {"value": 0.95, "low": 0.94, "high": 0.96}}},
        "runner_up": None,
        "threshold": {"value": 0.312345678901234},
        "calibration": {"kind": "temperature", "temperature": 1.3},
        "prior_shift": None,
        "baselines": {"prior": {"beaten": True}},
        "data": {"valid": {"x_sha256": "ab", "y_sha256": "cd", "num_patches": 1500}},
        "code": {"commit": "4fbfce8", "dirty": False},
        "findings": [Finding("coin-toss", "warning", "heads", "throw again")],
    }
    return Champion(**{**fields, **changes})


def test_what_is_saved_comes_back_equal(champion, path):
    champion.save(path)
    assert Champion.load(path) == champion
    assert [file.name for file in path.parent.glob("*champion*")] == ["champion.json"]


def test_the_run_is_found_from_wherever_both_have_been_moved(champion, path, run, tmp_path):
    champion.save(path)
    assert champion.run["path"] == run.name
    assert champion.check(path).path == run.path.resolve()
    moved = tmp_path / "elsewhere"
    shutil.move(path.parent, moved)
    assert Champion.load(moved / "champion.json").check(moved / "champion.json").name == run.name


def test_the_run_is_found_through_a_link_to_champion_json(champion, path, run, tmp_path):
    champion.save(path)
    link = tmp_path / "deep" / "down" / "best.json"
    link.parent.mkdir(parents=True)
    link.symlink_to(path)
    assert Champion.load(link).check(link).path == run.path.resolve()


def test_a_run_beside_another_folder_is_named_relative_and_without_common_folder_in_full(
    run, tmp_path
):
    (candidate,), _ = read_candidates([run])
    assert name_run(candidate, tmp_path / "out" / "c.json")["path"] == f"../runs/{run.name}"
    far = name_run(candidate, type(tmp_path)("/nowhere/c.json"))["path"]
    assert far == str(run.path.resolve())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[:200], "cannot be read"),
        (lambda text: "[1, 2]", "does not hold a JSON object"),
        (lambda text: text.replace('"threshold"', '"treshold"'), "is not a champion: threshold"),
        (lambda text: text.replace('"command"', '"comand"'), "is not a champion: command"),
        (lambda text: text.replace('"seed": 3', '"seed": "three"'), r"champion: run\.seed: Input"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "version 2; this release"),
        (lambda text: text.replace('"code"', '"cod": 1, "code"'), "cod: Unexpected"),
        (lambda text: "{}", "is not a champion"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_with_the_place(champion, path, damage, words):
    champion.save(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(RunError, match=words):
        Champion.load(path)


def test_a_missing_file_and_a_runs_own_record_are_no_champions(path, run):
    with pytest.raises(RunError, match="does not exist"):
        Champion.load(path)
    with pytest.raises(RunError, match=r"is the record of a run; give its folder"):
        Champion.load(run.record_path)


def test_weights_that_changed_since_are_refused(champion, path, run):
    champion.save(path)
    champion.check(path)
    write_weights(run, "one more epoch")
    with pytest.raises(RunError, match=r"of epoch 8, but its best checkpoint is .*another model"):
        champion.check(path)


def test_one_flipped_bit_of_the_weights_is_seen(champion, path, run):
    weights = run.checkpoints_dir / "best" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[0] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RunError, match="another model would be tested"):
        champion.check(path)


def test_weights_or_a_run_that_are_gone_are_refused(champion, path, run):
    shutil.rmtree(run.checkpoints_dir)
    with pytest.raises(RunError, match="its best checkpoint is missing"):
        champion.check(path)
    shutil.rmtree(run.path)
    with pytest.raises(RunError, match="there is no run at"):
        champion.check(path)


def test_another_run_at_the_same_place_is_refused(champion, path, run):
    record = RunRecord.load(run)
    record.run_id = "f" * 32
    record.save(run)
    with pytest.raises(RunError, match="is now the run ffffffffffff"):
        champion.check(path)


def test_the_hash_is_of_what_is_said_and_not_of_how_it_is_written(champion, path, tmp_path):
    champion.save(path)
    other = tmp_path / "other.json"
    content = read_json(path)
    other.write_text(json.dumps(dict(reversed(content.items())), indent=None))
    assert sha256_of_champion(other) == sha256_of_champion(path)
    write_json(other, {**content, "threshold": {"value": 0.3123456789012341}})
    assert sha256_of_champion(other) != sha256_of_champion(path)


# ---- freezing ------------------------------------------------------------------------------------


def test_another_champion_is_kept_and_never_overwritten(champion, path, tmp_path):
    assert freeze(champion, path) == (None, True)
    first = path.read_bytes()
    second = champion_of(fabricate_candidate(tmp_path / "runs", 4), path)
    kept, is_new = freeze(second, path)
    assert is_new and kept == path.with_name("champion-1.json")
    assert kept.read_bytes() == first
    assert Champion.load(path) == second
    third = dataclasses.replace(second, threshold={"value": 0.4})
    assert freeze(third, path)[0] == path.with_name("champion-2.json")
    assert Champion.load(kept).check(kept).name.endswith("seed3-lr0.003")


def test_the_same_choice_again_leaves_the_file_and_so_its_hash(champion, path):
    champion = dataclasses.replace(champion, evidence={"undefined": float("nan"), "pair": (1, 2)})
    freeze(champion, path)
    before = path.read_bytes()
    again = dataclasses.replace(champion, created_at="2027-01-01T00:00:00+00:00", command="again")
    assert freeze(again, path) == (None, False)
    assert path.read_bytes() == before


def test_a_damaged_champion_is_kept_as_well(champion, path):
    path.write_text("{half")
    kept, is_new = freeze(champion, path)
    assert is_new and kept.read_text() == "{half"
    assert Champion.load(path) == champion


def test_a_full_disk_leaves_the_former_champion_and_says_so(champion, path, monkeypatch):
    freeze(champion, path)
    before = path.read_bytes()

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    other = dataclasses.replace(champion, threshold={"value": 0.4})
    with pytest.raises(RunError, match=r"cannot be kept beside it: No space left.*Nothing is"):
        freeze(other, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.glob("*champion*")] == ["champion.json"]
    with pytest.raises(RunError, match=r"cannot write .*No space left"):
        champion.save(path.with_name("new.json"))
