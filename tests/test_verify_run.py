"""`ml-core verify`: a run is taken again from its record; whatever changed is named."""

import json
import os
import shutil
import signal

import h5py
import numpy as np
import pytest
import torch
import yaml
from tiny_pcam import rewrite_train, write_config, write_tiny_pcam
from typed import Done, typed

from ml_core.checkpoint import load_checkpoint
from ml_core.cli import main
from ml_core.data.layout import split_paths
from ml_core.log_line import to_line
from ml_core.numerics.uncompiled import AdamW
from ml_core.pipeline.audit import audit
from ml_core.runs import RunDir, read_json, read_jsonl, write_json
from ml_core.tracking import ExperimentTracker

STEPS = 6  # two epochs of three


class Verified(Done):
    """What a verification left."""

    @property
    def first(self):
        """The first difference, in one line."""
        return " ".join(str(value) for value in self.json["first_difference"].values())

    def of_kind(self, kind):
        return [each for each in self.json["differences"] if each["kind"] == kind]


@pytest.fixture
def verify(capfd):
    """Type a verification: verify(run, "--full")."""
    return lambda *arguments: Verified(**vars(typed(capfd, "verify", *arguments, "--json")))


@pytest.fixture
def train(capfd):
    """Train a config and return its run, which must have gone well."""

    def run(config, *arguments):
        done = typed(capfd, "train", config, *arguments, "--json")
        assert done.code == 0, done.out
        return RunDir.open(done.json["runs"][0]["run"])

    return run


@pytest.fixture(scope="module", autouse=True)
def same_code():
    """The code is one commit throughout, whoever edits the repository meanwhile."""
    record = {"commit": "c" * 40, "dirty": False, "untracked": []}
    with pytest.MonkeyPatch.context() as patch:
        for module in ("pipeline.train", "verification.run_evidence"):
            patch.setattr(f"ml_core.{module}.code_record", lambda: (dict(record), ""))
        yield


@pytest.fixture(autouse=True)
def same_threads_afterwards():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_tiny_pcam(tmp_path_factory.mktemp("tiny") / "data")


def config_of(folder, data_dir, name="config.yaml", **training):
    settings = {"epochs": 2, "chain_every": 2, "num_threads": 1, **training}
    return write_config(
        folder / name, data_dir, training=settings,
        model={"name": "mlp", "hidden_units": [16], "dropout_rate": 0.3},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir, same_code):
    """A run that nobody touches; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main_quietly(["train", str(config_of(folder, data_dir))])
    (run,) = (folder / "runs" / "tiny").iterdir()
    return RunDir.open(run)


def main_quietly(arguments):
    threads = torch.get_num_threads()
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the run, to be changed."""
    return RunDir(shutil.copytree(trained.path, tmp_path / trained.name, symlinks=True))


def edit_record(run, **changes):
    record = read_json(run.record_path)
    for key, change in changes.items():
        record[key] |= change
    write_json(run.record_path, record)


def contents(folder):
    """Every file of a folder with its bytes and the time it was written."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


# ---- a run that is the same again --------------------------------------------------------------


def test_an_unchanged_run_is_identical_and_nothing_of_it_is_touched(verify, trained):
    before = contents(trained.path)
    done = verify(trained.path)
    assert done.code == 0, done.out
    assert done.json["status"] == "identical"
    assert done.json["differences"] == []
    assert done.json["compared"] == {
        "first_step": 1, "last_step": STEPS, "steps": STEPS, "of_steps": STEPS, "links": 4,
        "epochs": 2, "checkpoints": 2,
    }  # fmt: skip
    assert "identical: 6 steps (1 to 6)" in done.out
    assert contents(trained.path) == before


def test_the_links_are_every_chain_every_steps_and_at_the_end_of_each_epoch(trained):
    assert [record["step"] for record in read_jsonl(trained.chain_path)] == [2, 3, 4, 6]


def test_a_part_can_be_taken_from_the_seed_or_from_a_checkpoint(verify, trained):
    assert verify(trained.path, "--steps", 2).json["compared"]["last_step"] == 2
    done = verify(trained.path, "--from", 3)
    assert done.code == 0, done.out
    assert (done.json["compared"]["first_step"], done.json["compared"]["last_step"]) == (4, 4)
    done = verify(trained.path, "--from", 3, "--full")
    assert (
        done.json["compared"] | {"first_step": 4, "last_step": 6, "links": 2, "epochs": 1}
        == (done.json["compared"])
    )


def test_a_run_stopped_in_mid_epoch_and_resumed_has_the_same_chain(
    train, verify, capfd, trained, data_dir, tmp_path, monkeypatch
):
    log_step = ExperimentTracker.log_step

    def stop_at_two(self, step, values, **when):
        log_step(self, step, values, **when)
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ExperimentTracker, "log_step", stop_at_two)
        done = typed(capfd, "train", config_of(tmp_path, data_dir), "--json")
    assert done.code == 130
    run = RunDir.open(done.json["runs"][0]["run"])
    assert [record["step"] for record in read_jsonl(run.chain_path)] == [2, 3, 4]
    assert typed(capfd, "train", "--resume", run.path).code == 0
    assert run.chain_path.read_bytes() == trained.chain_path.read_bytes()
    assert verify(run.path).code == 0
    assert verify(run.path, trained.path).json["differences"] == []


def test_a_run_without_a_chain_is_compared_by_its_losses(verify, copy):
    copy.chain_path.unlink()
    done = verify(copy.path)
    assert done.code == 0, done.out
    assert done.json["compared"]["links"] == 0


def test_patches_that_an_audit_left_out_stay_out_by_the_runs_own_list(
    train, verify, tmp_path, monkeypatch
):
    monkeypatch.setattr("ml_core.pipeline.audit.render_audit", lambda *_: None)
    folder = write_tiny_pcam(tmp_path / "data")
    rewrite_train(folder, lambda patches: patches[:4].fill(np.nan))
    audit(folder)
    config = config_of(tmp_path, folder)
    run = train(config, "--set", "data.on_findings=exclude", "--set", "training.epochs=1")
    shutil.rmtree(folder / "audit")  # the run has a copy
    done = verify(run.path)
    assert done.code == 0, done.out
    assert done.json["differences"] == []


def test_the_same_values_packed_otherwise_are_the_same_data(verify, trained, data_dir, tmp_path):
    packed = shutil.copytree(data_dir, tmp_path / "packed")
    paths = split_paths(packed, "train")
    with h5py.File(paths.x) as file:
        patches = file["x"][:]
    with h5py.File(paths.x, "w") as file:
        file.create_dataset("x", data=patches, chunks=(8, 96, 96, 3), compression="gzip")
    done = verify(trained.path, "--set", f"data.data_path={packed}")
    assert done.code == 0, done.out
    assert done.json["differences"] == []


def test_a_run_without_a_set_number_of_threads_gets_those_it_had(train, verify, data_dir, tmp_path):
    torch.set_num_threads(2)
    run = train(config_of(tmp_path, data_dir, num_threads=None), "--set", "training.epochs=1")
    torch.set_num_threads(1)
    done = verify(run.path)
    assert done.code == 0, done.out
    assert done.json["differences"] == []


def test_a_portable_run_is_identical_with_another_number_of_threads(
    train, verify, data_dir, tmp_path
):
    config = config_of(tmp_path, data_dir, numerics="portable", epochs=1)
    run = train(config, "--set", "data.max_patches=32", "--set", "training.num_threads=1")
    torch.set_num_threads(2)
    done = verify(run.path)
    assert done.code == 0, done.out
    assert [each["kind"] for each in done.json["differences"]] == ["hardware"]
    assert "threads" in done.first


# ---- what changed, named for what it is --------------------------------------------------------


def test_another_commit_is_named_and_forgiven_where_the_bits_are_the_same(verify, copy):
    edit_record(copy, code={"commit": "0123456789" * 4})
    done = verify(copy.path)
    assert done.code == 0, done.out
    assert done.json["first_difference"]["kind"] == "code"
    assert "0123456789" in done.first
    assert "changed no bit" in done.out


def test_an_edited_config_is_named_with_the_key(verify, copy):
    edited = yaml.safe_load(copy.config_path.read_text())
    edited["optimizer"]["lr"] = 0.5
    copy.config_path.write_text(yaml.safe_dump(edited))
    done = verify(copy.path)
    assert done.code == 3, done.out
    assert done.json["first_difference"]["kind"] == "config"
    assert "optimizer.lr" in done.first
    assert "0.5" in done.first
    assert done.of_kind("numerics") == []


def test_one_changed_pixel_is_named_with_its_file_and_rows(verify, trained, data_dir, tmp_path):
    changed = shutil.copytree(data_dir, tmp_path / "changed")
    paths = split_paths(changed, "train")
    with h5py.File(paths.x, "r+") as file:
        file["x"][41, 48, 48, 1] ^= 1
    done = verify(trained.path, "--set", f"data.data_path={changed}")
    assert done.code == 3, done.out
    assert done.json["first_difference"]["kind"] == "data"
    assert paths.x.name in done.first
    assert "0" in done.first and "95" in done.first  # the chunk that holds row 41
    assert done.of_kind("data") == [done.json["first_difference"]]
    assert done.of_kind("numerics")[0]["what"].startswith("step")


def test_another_package_version_is_named_and_forgiven_where_the_bits_are_the_same(verify, copy):
    edit_record(copy, packages={"numpy": "1.2.3"})
    text = copy.packages_path.read_text().splitlines()
    lines = ["numpy==1.2.3" if line.startswith("numpy==") else line for line in text]
    copy.packages_path.write_text("\n".join(lines) + "\n")
    done = verify(copy.path)
    assert done.code == 0, done.out
    assert done.json["first_difference"]["kind"] == "packages"
    assert "numpy" in done.first and "1.2.3" in done.first


def test_another_number_of_threads_is_named_before_the_bits_it_changed(
    train, verify, data_dir, tmp_path
):
    few = {"max_patches": 32, "batch_size": 16}
    config = write_config(
        tmp_path / "cnn.yaml",
        data_dir,
        training={"epochs": 1},
        data={"data_path": str(data_dir), **few},
    )
    raw = yaml.safe_load(config.read_text())
    raw["model"] = {"name": "cnn", "widths": [8, 8], "blocks_per_stage": 1}
    config.write_text(yaml.safe_dump(raw))
    runs = [train(config, "--set", f"training.num_threads={threads}") for threads in (1, 2)]
    done = verify(*(run.path for run in runs))
    assert done.code == 3, done.out
    kinds = [each["kind"] for each in done.json["differences"]]
    assert kinds[0] == "config"
    assert "training.num_threads" in done.first
    assert any("threads" in each["what"] for each in done.of_kind("hardware"))
    assert kinds[-1] == "numerics"
    # and each alone is the same again, whatever this process was set to
    assert verify(runs[1].path).code == 0


def test_one_flipped_bit_of_a_weight_is_named_with_its_step_and_tensor(
    train, verify, data_dir, tmp_path, monkeypatch
):
    step_of = AdamW.step

    def step_and_break(optimizer, *arguments):
        result = step_of(optimizer, *arguments)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        (bias,) = (p for p in parameters if p.shape == (2,))
        if optimizer.state[bias]["step"] == 3:
            bias.data.view(torch.int32)[1] ^= 1 << 26  # of the exponent: 256 times as much
        return result

    with monkeypatch.context() as patch:
        patch.setattr(AdamW, "step", step_and_break)
        broken = train(config_of(tmp_path, data_dir))
    done = verify(broken.path)
    assert done.code == 3, done.out
    assert {each["kind"] for each in done.json["differences"]} == {"numerics"}
    tensors = next(read_jsonl(broken.chain_path))["tensors"]
    (name,) = (n for n in tensors if n.startswith("model.") and n.endswith("4.bias"))
    said = [each["what"] for each in done.json["differences"]]
    assert any(what.startswith("step 4") for what in said)  # the first loss that differs
    assert any("after step 3" in what and name in what for what in said)


def test_a_checkpoint_changed_after_the_run_is_named_with_its_tensor(verify, copy, trained):
    path = copy.checkpoints_dir / "step-00000003"
    name = change_one_weight(path)
    load_checkpoint(path)  # its manifest is as whole as before
    done = verify(copy.path, "--from", 3)
    assert done.code == 3, done.out
    assert "the checkpoint at step 3" in done.first
    assert f"model.{name}" in done.first
    assert verify(copy.path, trained.path).code == 3


def test_best_weights_that_were_exchanged_are_found_though_every_step_is_the_same(verify, copy):
    best = copy.checkpoints_dir / "best"
    step = int(best.resolve().name.removeprefix("step-"))
    other = next(s for s in (3, 6) if s != step)
    best.unlink()
    best.symlink_to(f"step-{other:08d}")
    done = verify(copy.path, "--steps", 2)
    assert done.code == 3, done.out
    assert f"the checkpoint at step {other}" in done.first and "the best weights" in done.first
    assert len(done.json["differences"]) == 1


def test_a_damaged_checkpoint_is_named_and_the_steps_are_taken_all_the_same(verify, copy):
    with open(copy.checkpoints_dir / "step-00000003" / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x77")
    done = verify(copy.path)
    assert done.code == 3, done.out
    assert "the checkpoint at step 3" in done.first
    assert done.json["compared"]["checkpoints"] == 1
    assert len(done.json["differences"]) == 1


@pytest.mark.parametrize(
    ("name", "keep", "said"),
    [
        ("steps.jsonl", lambda n: n != 3, "goes on with step 4 after 2"),
        ("steps.jsonl", lambda n: n < 6, "ends at step 5, metrics.jsonl at step 6"),
        ("steps.jsonl", lambda n: False, "ends at step 0"),
        ("metrics.jsonl", lambda n: n < 2, "ends at step 3, steps.jsonl at step 6"),
        ("chain.jsonl", lambda n: n < 4, "ends at step 4, steps.jsonl at step 6"),
    ],
)
def test_a_log_from_which_lines_were_taken_is_refused(verify, copy, trained, name, keep, said):
    lines = (copy.path / name).read_bytes().splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines, start=1) if keep(number)]
    (copy.path / name).write_bytes(b"".join(kept))
    for arguments in ([copy.path, "--steps", 2], [trained.path, copy.path]):
        done = verify(*arguments)
        assert done.code == 2, done.out
        assert f"{name} {said}" in done.out.replace("\n", " ")


def test_a_record_that_is_no_config_is_named_by_the_file_that_the_user_has(verify, copy):
    record = read_json(copy.record_path)
    record["config"]["data"]["batch_sise"] = record["config"]["data"].pop("batch_size")
    write_json(copy.record_path, record)
    done = verify(copy.path)
    assert done.code == 2
    assert f"the config in {copy.record_path} is not a valid" in done.out.replace("\n", " ")


def change_one_weight(checkpoint):
    """Change one weight of a checkpoint and write a manifest that agrees with it."""
    import hashlib

    from safetensors.torch import load_file, save_file

    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    tensors[name][0, 0] += 1
    save_file(tensors, file)
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    manifest["sha256"]["model.safetensors"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))
    return name


def test_a_replay_that_stops_where_the_run_did_not_says_so(verify, trained, monkeypatch):
    step_of = AdamW.step

    def step_into_infinity(optimizer, *arguments):
        step_of(optimizer, *arguments)
        optimizer.param_groups[0]["params"][0].data.fill_(torch.inf)

    monkeypatch.setattr(AdamW, "step", step_into_infinity)
    done = verify(trained.path)
    assert done.code == 3, done.out
    assert "step 2 of 6" in done.first
    assert "stopped: training stopped at the first value that is not finite" in done.first


# ---- two runs ----------------------------------------------------------------------------------


def test_two_trainings_of_one_config_are_identical(train, verify, trained, data_dir, tmp_path):
    again = train(config_of(tmp_path, data_dir))
    done = verify(trained.path, again.path)
    assert done.code == 0, done.out
    assert done.json["differences"] == []
    assert done.json["compared"]["links"] == 4


def test_another_seed_is_a_difference_of_the_config_and_then_of_the_first_step(
    train, verify, trained, data_dir, tmp_path
):
    other = train(config_of(tmp_path, data_dir), "--set", "seed=7")
    done = verify(trained.path, other.path)
    assert done.code == 3, done.out
    assert done.json["first_difference"]["kind"] == "config"
    assert "seed" in done.first and "42" in done.first and "7" in done.first
    assert "step 1" in done.of_kind("numerics")[0]["what"]


# ---- a witness ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def witness_file(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("witness") / "witness.json"
    main_quietly(["verify", str(trained.path), "--witness", str(path)])
    return path


def test_a_witness_is_the_same_again_and_names_the_recipe_it_is_of(verify, trained, witness_file):
    document = read_json(witness_file)
    assert document["made_of"] == trained.name
    assert document["recipe"]["model"]["name"] == "mlp"
    assert document["recipe"]["optimizer"]["name"] == "adamw"
    assert document["recipe"]["seed"] == 42
    done = verify(witness_file)
    assert done.code == 0, done.out
    assert "identical: 4 portable steps" in done.out
    assert done.json["hash"] == document["witness"]["hash"]


def test_a_witness_of_other_bits_is_not_identical_and_says_where(verify, witness_file, tmp_path):
    document = read_json(witness_file)
    document["witness"]["losses"][2] = (0.5).hex()
    write_json(tmp_path / "other.json", document)
    done = verify(tmp_path / "other.json")
    assert done.code == 3, done.out
    assert "the loss of step 3 differs: 0.5" in done.out
    assert f"ml-core {document['made_with']['ml-core']}" in done.out


@pytest.mark.slow
def test_a_witness_of_another_seed_has_other_bits(verify, witness_file, tmp_path):
    document = read_json(witness_file)
    document["recipe"]["seed"] += 1
    write_json(tmp_path / "other.json", document)
    done = verify(tmp_path / "other.json")
    assert done.code == 3, done.out
    assert "the initial weights differ" in done.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("recipe"), "has no recipe"),
        (lambda d: d.update(witness=3), "has no witness"),
        (lambda d: d["witness"].pop("losses"), "is no witness"),
        (lambda d: d["recipe"].pop("seed"), "seed is missing or unknown"),
        (lambda d: d["recipe"].update(evil=1), "evil is missing or unknown"),
        (lambda d: d["recipe"].update(optimizer="rm"), "cannot be followed"),
        (lambda d: d["recipe"].update(format=9), "has format 9"),
    ],
)
def test_a_file_that_is_no_witness_is_refused_in_words(
    verify, witness_file, tmp_path, change, message
):
    document = read_json(witness_file)
    change(document)
    write_json(tmp_path / "bad.json", document)
    done = verify(tmp_path / "bad.json")
    assert done.code == 2, done.out
    assert message in done.out.replace("\n", " ")
    assert "Traceback" not in done.out


def test_a_witness_is_not_written_into_the_run(verify, trained):
    done = verify(trained.path, "--witness", trained.path / "w.json")
    assert done.code == 2
    assert "lies in the run" in done.out


# ---- what is refused ---------------------------------------------------------------------------


def test_a_chain_that_was_changed_is_refused_with_its_line(verify, copy):
    links = list(read_jsonl(copy.chain_path))
    links[1]["state"] = "0" * 64
    copy.chain_path.write_bytes(b"".join(to_line(link) for link in links))
    done = verify(copy.path)
    assert done.code == 2
    assert "Traceback" not in done.out
    assert "chain.jsonl, line 2 (step 3), does not follow" in done.out.replace("\n", " ")


def test_a_setting_that_decided_what_was_trained_cannot_be_set_anew(verify, trained):
    done = verify(trained.path, "--set", "training.num_threads=2")
    assert done.code == 2
    assert "was trained with its own" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "--full", "--steps", "3"], "give one of the two"),
        (["RUN", "--from", "2"], "there are: 3, 6"),
        (["RUN", "RUN"], "was given twice"),
        (["RUN", "RUN", "--full"], "two runs are compared as recorded"),
        (["RUN", "RUN", "RUN"], "3 paths were given"),
        (["RUN", "--witness", "w.json", "--full"], "replays nothing"),
        (["w.json", "--set", "a=1"], "trained again as it is"),
        (["nowhere"], "is not a run directory"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(verify, trained, arguments, message):
    done = verify(*[trained.path if word == "RUN" else word for word in arguments])
    assert done.code == 2, done.out
    assert message in done.out.replace("\n", " ")
    assert "Traceback" not in done.out
