"""Two runs, or a run and the present: every difference is named, causes before effects."""

import copy
import dataclasses
import json
import math
import subprocess
import sys

import pytest
import yaml

from ml_core.errors import ConfigError, RunError
from ml_core.reproducibility import data_digests
from ml_core.runs import RunDir, RunRecord, write_json, write_text
from ml_core.tracking.chain import Chain
from ml_core.tracking.log_file import LogFile
from ml_core.verification.compare_logs import compare_logs
from ml_core.verification.compare_records import compare_records
from ml_core.verification.differences import KINDS, MISSING, NOT_RECORDED, Difference
from ml_core.verification.run_evidence import evidence_of_now, read_evidence

CONFIG = {
    "seed": 42,
    "output_dir": "runs",
    "data": {"data_path": "/data", "batch_size": 32, "num_workers": 0},
    "model": {"name": "mlp", "hidden_units": [16]},
    "optimizer": {"name": "adamw", "lr": 0.001, "betas": [0.9, 0.999]},
    "training": {"numerics": "fast", "num_threads": None, "device": "auto"},
}
CODE = {"commit": "c" * 40, "dirty": True, "untracked": ["new.py"], "left_out": {}}
CHANGES = """\
diff --git a/src/a.py b/src/a.py
index 111..222 100644
--- a/src/a.py
+++ b/src/a.py
@@ -1 +1 @@
-x = 1
+x = 2

diff --git a/src/new.py b/src/new.py
new file mode 100644
index 000..333
--- /dev/null
+++ b/src/new.py
@@ -0,0 +1 @@
+y = 1
"""
NUMERICS = {
    "level": "fast",
    "num_threads": 2,
    "device": "cpu",
    "ranks": 1,
    "micro_batch": None,
    "libraries": {"torch": "2.13.0", "mkl": "2024.2", "onednn": "3.12.0"},
    "processor": {"name": "EPYC", "aten": "AVX512", "onednn": "AVX512_CORE"},
    "variables": {},
}
PACKAGES = {"numpy": "2.4.6", "torch": "2.13.0", "rich": "13.7"}


def split_record(split, digest, num_rows=2500):
    return {
        "x_path": f"/data/{split}_x.h5",
        "y_path": f"/data/{split}_y.h5",
        "x_sha256": digest * 64,
        "y_sha256": "e" * 64,
        "num_rows": num_rows,
        "num_patches": num_rows,
        "num_excluded": 0,
    }


def write_run(path, *, steps=6, config=None, **record):
    """Write a run directory as training leaves one; return it."""
    run = RunDir(path)
    path.mkdir()
    config = CONFIG if config is None else config
    RunRecord(
        experiment_name="tiny",
        seed=42,
        command="train",
        **{
            "status": "completed",
            "config": config,
            "code": CODE,
            "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
            "hardware": {"processor": "EPYC", "torch_threads": 2, "gpu": None},
            "numerics": NUMERICS,
            "data": {"train": split_record("train", "a"), "valid": split_record("valid", "b")},
            **record,
        },
    ).save(run)
    write_text(run.config_path, yaml.safe_dump(config))
    write_text(run.diff_path, CHANGES)
    write_text(run.packages_path, "".join(f"{k}=={v}\n" for k, v in PACKAGES.items()))
    write_digests(run)
    write_logs(run, steps)
    return run


def write_digests(run, groups=("0", "1", "2")):
    entry = {"name": "train_x.h5", "size": 1, "sha256": "a", "groups": list(groups)}
    write_json(run.data_digests_path, {"format": 1, "files": {"train_x": entry}})


def write_logs(
    run, steps=6, *, loss=None, norms=None, tensors=None, batches=None, val_loss=0.5, link_every=2
):
    """Write the logs of `steps` steps; the dicts change a value from a step on."""
    for path in (run.steps_log_path, run.gradients_log_path, run.metrics_log_path, run.chain_path):
        path.unlink(missing_ok=True)
    logs = [LogFile(path) for path in (run.steps_log_path, run.gradients_log_path)]
    chain = Chain(run.chain_path)
    for step in range(1, steps + 1):
        value = (loss or {}).get(step, 0.7 / step)
        norm = (norms or {}).get(step, 1.25)
        logs[0].append({"step": step, "time": run.name, "loss": value, "grad_norm": norm})
        logs[1].append({"step": step, "input": 1.0, "hidden": float(f"{norm:.5g}")})
        chain.note_batch([step, (batches or {}).get(step, 0)])
        if step % link_every == 0:
            found = {"model.a": f"{step}", "model.b": f"{step}", **(tensors or {}).get(step, {})}
            chain.link(step, 1, json.dumps(found), found)
    metrics = LogFile(run.metrics_log_path)
    metrics.append({"epoch": 1, "step": steps, "val_loss": val_loss, "seconds": hash(run.name)})
    for log in (*logs, metrics, chain):
        log.close()


@pytest.fixture
def runs(tmp_path):
    """Two runs that were the same run."""
    return write_run(tmp_path / "a"), write_run(tmp_path / "b")


def compare(a, b):
    return compare_records(read_evidence(a), read_evidence(b))


def only(differences) -> Difference:
    assert len(differences) == 1, [str(each) for each in differences]
    return differences[0]


def rewritten(run, **record):
    """Change what run.json of `run` says."""
    found = RunRecord.load(run)
    dataclasses.replace(found, **record).save(run)
    return run


# ---- no difference -----------------------------------------------------------------------------


def test_two_runs_that_were_the_same_have_no_difference(runs):
    assert compare(*runs) == []


def test_what_reaches_no_weight_is_no_difference(runs):
    a, b = runs
    config = copy.deepcopy(CONFIG)
    config["data"] |= {"data_path": "/elsewhere", "num_workers": 4}
    config["output_dir"] = "other"
    config["training"]["device"] = "cpu"
    moved = {**split_record("train", "a"), "x_path": "/elsewhere/renamed.h5"}
    rewritten(b, config=config, data={"train": moved, "valid": split_record("valid", "b")})
    write_text(b.config_path, yaml.safe_dump(config))
    assert compare(a, b) == []


def test_the_record_can_be_compared_without_torch():
    code = "import sys, ml_core.verification.compare_records; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- each kind of difference -------------------------------------------------------------------


def test_another_commit_is_named_with_how_to_get_it(runs):
    a, b = runs
    rewritten(b, code={**CODE, "commit": "d" * 40})
    found = only(compare(a, b))
    assert (found.kind, found.what) == ("code", "commit")
    assert (found.here, found.there) == ("c" * 12, "d" * 12)
    assert found.advice == f"Use the code that ran: git checkout {'c' * 12}."


def test_another_commit_with_the_same_package_is_said_to_change_no_bit(runs):
    a, b = runs
    rewritten(a, code={**CODE, "source_sha256": "f" * 64})
    rewritten(b, code={**CODE, "commit": "d" * 40, "source_sha256": "f" * 64})
    write_text(b.diff_path, "")
    found = only(compare(a, b))
    assert "no bit changes" in found.advice
    assert found.what == "commit (the package's own files are the same)" and found.is_harmless
    rewritten(b, code={**CODE, "commit": "d" * 40, "source_sha256": "0" * 64})
    other = compare(a, b)[0]
    assert other.what == "commit (the package's own files differ)" and not other.is_harmless


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (CHANGES.replace("+x = 2", "+x = 3"), "uncommitted changes of src/a.py"),
        (CHANGES.replace("+y = 1", "+y = 2"), "uncommitted changes of src/new.py"),
        (CHANGES[: CHANGES.index("diff --git a/src/new")], "uncommitted changes of src/new.py"),
    ],
)
def test_a_change_on_top_of_the_commit_is_named_by_its_file(runs, changes, what):
    a, b = runs
    write_text(b.diff_path, changes)
    found = only(compare(a, b))
    assert (found.kind, found.what) == ("code", what)
    assert found.here != found.there
    assert found.advice.startswith("Apply the run's changes.diff")


def test_a_change_that_the_run_did_not_have_is_to_be_undone(runs):
    a, b = runs
    write_text(a.diff_path, CHANGES[: CHANGES.index("diff --git a/src/new")])
    found = only(compare(a, b))
    assert (found.what, found.here) == ("uncommitted changes of src/new.py", "none")
    assert found.advice.startswith("The run had no change there: undo it")


def test_gits_index_lines_are_no_difference(runs):
    a, b = runs
    write_text(b.diff_path, CHANGES.replace("index 111..222", "index 1110000..2220000"))
    assert compare(a, b) == []


def test_a_change_whose_content_was_not_kept_cannot_be_told(runs):
    a, b = runs
    rewritten(a, code={**CODE, "left_out": {"src/large.py": "too large"}})
    found = only(compare(a, b))
    assert found.what == "content of src/large.py, changed in a"
    assert (found.here, found.there) == (NOT_RECORDED, NOT_RECORDED)


def test_with_the_same_package_no_other_change_in_the_repository_matters(runs):
    a, b = runs
    same = {**CODE, "source_sha256": "f" * 64, "left_out": {"docs/large.md": "too large"}}
    for run in runs:
        rewritten(run, code=same)
    write_text(b.diff_path, "")
    assert compare(a, b) == []


def test_two_installed_copies_are_compared_by_their_files(runs):
    a, b = runs
    installed = {"commit": None, "dirty": None, "source_sha256": "1" * 64}
    rewritten(a, code=installed)
    rewritten(b, code=installed)
    assert compare(a, b) == []
    rewritten(b, code={**installed, "source_sha256": "2" * 64})
    found = only(compare(a, b))
    assert (found.kind, found.what) == ("code", "the package's own files")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("optimizer", "lr", 0.002), ("model", "hidden_units", [16, 16]), ("data", "batch_size", 64)],
)
def test_another_setting_is_named_with_both_values(runs, section, key, value):
    a, b = runs
    config = copy.deepcopy(CONFIG)
    config[section][key] = value
    rewritten(b, config=config)
    write_text(b.config_path, yaml.safe_dump(config))
    found = only(compare(a, b))
    assert (found.kind, found.what) == ("config", f"{section}.{key}")
    assert (found.here, found.there) == (str(CONFIG[section][key]), str(value))


def test_a_config_file_edited_after_the_run_is_told_from_another_config(runs):
    a, b = runs
    edited = copy.deepcopy(CONFIG)
    edited["optimizer"]["lr"] = 0.01
    write_text(a.config_path, yaml.safe_dump(edited))
    found = only(compare(a, b))
    assert (found.what, found.here, found.there) == (
        "config.yaml of a against its run.json, optimizer.lr",
        "0.001",
        "0.01",
    )
    assert found.is_edit  # by now, not in b
    assert found.advice.startswith("One of the two was edited after the run.")


def test_a_config_file_that_is_gone_is_named(runs):
    a, b = runs
    a.config_path.unlink()
    found = only(compare(a, b))
    assert (found.kind, found.what, found.there) == ("config", "config.yaml of a", MISSING)
    assert found.is_unknown  # it contradicts nothing


def test_a_record_without_the_config_says_that_an_edit_could_not_be_told(runs):
    a, b = runs
    rewritten(a, config={})
    found = only(compare(a, b))
    assert (found.what, found.here) == ("run.json of a, the config", NOT_RECORDED)
    assert found.is_unknown


def test_an_edit_is_said_once_where_the_present_reads_the_edited_file(runs):
    a, b = runs
    edited = copy.deepcopy(CONFIG)
    edited["optimizer"]["lr"] = 0.01
    write_text(a.config_path, yaml.safe_dump(edited))
    present = dataclasses.replace(read_evidence(b), config=edited, config_file=None, status="")
    assert only(compare_records(read_evidence(a), present)).what.startswith("config.yaml of a")


def test_where_a_run_went_on_elsewhere_is_named_with_what_was_different(runs):
    a, b = runs
    noted = {"step": 4, "changes": ["the processor was EPYC and is Xeon"]}
    rewritten(b, numerics={**NUMERICS, "elsewhere": [noted]})
    found = only(compare(a, b))
    assert found.kind == "hardware" and found.is_edit
    assert found.what == "b went on elsewhere after step 4 (the processor was EPYC and is Xeon)"


@pytest.mark.parametrize("files", [3, {"train_x": 3}, {"train_x": {"groups": 3}}, {}])
def test_digests_that_were_edited_out_of_shape_name_the_file_alone(runs, files):
    a, b = runs
    rewritten(b, data={"train": split_record("train", "c"), "valid": split_record("valid", "b")})
    write_json(a.data_digests_path, {"format": 1, "files": files})
    found = only(compare(a, b))
    assert found.what == "train_x.h5 (train patches)"


def changed_patches(run):
    return rewritten(
        run, data={"train": split_record("train", "9"), "valid": split_record("valid", "b")}
    )


def test_changed_patches_are_named_by_their_file_and_their_first_1024_rows(runs):
    a, b = runs
    changed_patches(b)
    write_digests(b, ("0", "other", "also"))
    found = only(compare(a, b))
    assert found.kind == "data"
    assert found.what == "train_x.h5 (train patches), first in rows 1,024 to 2,047"
    write_digests(b, ("0", "1", "other"))
    assert only(compare(a, b)).what.endswith("rows 2,048 to 2,499")


def test_a_file_packed_otherwise_is_no_difference(runs):
    a, b = runs
    changed_patches(b)
    assert compare(a, b) == []


def test_rows_of_an_older_run_are_not_guessed(runs):
    a, b = runs
    changed_patches(b)
    a.data_digests_path.unlink()
    found = only(compare(a, b))
    assert found.what == "train_x.h5 (train patches)" and "not recorded" in found.advice


def test_other_rows_of_the_same_files_are_named(runs):
    a, b = runs
    fewer = {**split_record("train", "a"), "num_patches": 2400, "num_excluded": 100}
    rewritten(
        b,
        data={"train": fewer, "valid": split_record("valid", "b")},
        audit={"exclusions_sha256": "f" * 64},
    )
    found = compare(a, b)
    assert [each.what for each in found] == [
        "exclusions.csv, the patches left out",
        "train: num_patches",
    ]
    assert (found[1].here, found[1].there) == ("2,500", "2,400")


def test_packages_are_named_those_that_can_change_a_result_first(runs):
    a, b = runs
    write_text(b.packages_path, "added==1.0\nnumpy==2.5.0\nrich==14.0\ntorch==2.13.0\n")
    found = compare(a, b)
    assert [(each.what, each.here, each.there) for each in found] == [
        ("numpy", "2.4.6", "2.5.0"),
        ("rich", "13.7", "14.0"),
        ("added", "not installed", "1.0"),
    ]
    assert {each.kind for each in found} == {"packages"}
    assert found[0].advice == "Install the version that ran: pip install numpy==2.4.6."


def test_an_older_run_has_its_short_list_of_packages_compared(runs):
    a, b = runs
    a.packages_path.unlink()
    unknown = only(compare(a, b))
    assert unknown.what.startswith("all but 14 of them") and unknown.is_unknown
    rewritten(a, packages={"torch": "2.12.0", "numpy": "2.4.6"})
    assert [each.what for each in compare(a, b)] == [unknown.what, "torch"]


@pytest.mark.parametrize(
    ("key", "value", "what", "advice"),
    [
        ("num_threads", 1, "training.num_threads", "Set training.num_threads to 2"),
        ("libraries", {"torch": "2.14.0"}, "the version of torch", "same machine type"),
        ("variables", {"MKL_CBWR": "COMPATIBLE"}, "MKL_CBWR", "Unset MKL_CBWR."),
    ],
)
def test_another_machine_library_thread_count_or_variable_is_named(runs, key, value, what, advice):
    a, b = runs
    rewritten(b, numerics={**NUMERICS, key: value})
    found = only(compare(a, b))
    assert (found.kind, found.what) == ("hardware", what)
    assert advice in found.advice


def test_portable_is_said_to_depend_on_no_machine(runs):
    a, b = runs
    portable = {**NUMERICS, "level": "portable", "micro_batch": 16}
    rewritten(a, numerics=portable)
    rewritten(b, numerics={**portable, "num_threads": 1})
    assert "no bit depends on it" in only(compare(a, b)).advice


def test_of_a_run_without_numerics_the_hardware_is_compared_and_the_rest_not_guessed(runs):
    a, b = runs
    rewritten(a, numerics={}, hardware={"processor": "EPYC", "torch_threads": 1, "gpu": None})
    found = compare(a, b)
    assert [(each.what, each.here, each.there) for each in found] == [
        ("the number of threads", "1", "2"),
        ("libraries and variables", NOT_RECORDED, "recorded"),
    ]


# ---- the bits ----------------------------------------------------------------------------------


def test_the_first_step_whose_bits_differ_is_named_with_by_how_much(runs):
    a, b = runs
    tail = {step: 0.7 / step + 1e-9 for step in (4, 5, 6)}
    write_logs(b, loss=tail)
    found = only(compare(a, b))
    assert (found.kind, found.what) == ("numerics", "step 4, loss")
    assert found.here == repr(0.7 / 4)
    assert found.there == f"{tail[4]!r} (+1.00e-09, 5.7e-09 of it)"


def test_one_bit_in_the_last_place_is_a_difference(runs):
    a, b = runs
    write_logs(b, loss={3: math.nextafter(0.7 / 3, 1)})
    assert only(compare(a, b)).what == "step 3, loss"


def test_a_gradient_norm_that_differs_names_the_layers_that_part(runs):
    a, b = runs
    write_logs(b, norms={5: 1.26})
    found = only(compare(a, b))
    assert found.what == "step 5, gradient norm"
    assert "the gradients of hidden part" in found.advice


def test_steps_are_compared_with_their_own_number_and_not_as_a_set(runs):
    a, b = runs
    write_logs(b, loss={2: 0.7 / 3, 3: 0.7 / 2})  # the same losses, two of them swapped
    assert only(compare(a, b)).what == "step 2, loss"


def test_the_first_link_names_the_first_tensor_that_differs(runs):
    a, b = runs
    later = {"model.b": "y", "model.c": "y"}  # model.c is in one of the runs only
    write_logs(b, tensors={4: {"model.b": "x", "model.c": "z"}, 6: later})
    found = only(compare(a, b))
    assert found.what == "state after step 4, model.b (of 2 tensors that differ)"
    assert (found.here, found.there) == ("4", "x")


def test_other_patches_since_the_link_before_are_told_from_another_state(runs):
    a, b = runs
    write_logs(b, batches={3: 99})
    assert only(compare(a, b)).what == (
        "link at step 4, patches trained on since the link before it"
    )


def test_links_at_other_steps_are_compared_where_both_have_one(runs):
    a, b = runs
    write_logs(b, link_every=3)  # the patches since the link before are others then
    assert compare(a, b) == []
    write_logs(b, link_every=3, tensors={6: {"model.a": "x"}})
    assert only(compare(a, b)).what.startswith("state after step 6, model.a")


def test_scores_that_differ_after_equal_steps_are_named(runs):
    a, b = runs
    write_logs(b, val_loss=0.6)
    assert only(compare(a, b)).what == "epoch 1, val_loss"


def test_a_run_that_took_fewer_steps_differs_only_when_both_are_over(tmp_path):
    a = write_run(tmp_path / "a", steps=6)
    b = write_run(tmp_path / "b", steps=4, status="interrupted")
    assert compare(a, b) == []
    rewritten(b, status="completed")
    found = only(compare(a, b))
    assert (found.what, found.here, found.there) == ("step 5", "taken", "not taken")
    assert compare_logs(a, b, up_to_shorter=True) == []


def test_a_damaged_log_is_refused_and_not_compared(runs):
    a, b = runs
    text = b.steps_log_path.read_text().splitlines(keepends=True)
    b.steps_log_path.write_text(text[0] + "{\n" + text[1])
    with pytest.raises(RunError, match="line 2"):
        compare(a, b)


# ---- the order, and the present ----------------------------------------------------------------


def test_differences_come_in_the_order_code_config_data_packages_hardware_numerics(runs):
    a, b = runs
    config = {**CONFIG, "seed": 43}
    rewritten(
        b,
        code={**CODE, "commit": "d" * 40},
        config=config,
        data={"train": split_record("train", "9"), "valid": split_record("valid", "b")},
        numerics={**NUMERICS, "num_threads": 1},
    )
    write_text(b.config_path, yaml.safe_dump(config))
    write_digests(b, ("other", "1", "2"))
    write_text(b.packages_path, "numpy==2.5.0\nrich==13.7\ntorch==2.13.0\n")
    write_logs(b, loss={1: 0.8})
    found = compare(a, b)
    assert tuple(each.kind for each in found) == KINDS
    for each in found:
        assert each.advice.endswith(".")
        assert json.loads(json.dumps(each.to_dict()))["what"] == each.what


def test_a_run_recorded_now_does_not_differ_from_the_present(tmp_path):
    data = {"train": split_record("train", "a")}
    digests = data_digests({})
    now = evidence_of_now(CONFIG, data=data, digests=digests, numerics=NUMERICS)
    run = write_run(
        tmp_path / "a",
        code=dict(now.code),
        packages=dict(now.packages),
        hardware=dict(now.hardware),
        data=data,
    )
    write_text(run.diff_path, now.changes)
    write_text(run.packages_path, "".join(f"{k}=={v}\n" for k, v in now.all_packages.items()))
    assert compare_records(read_evidence(run), now) == []


def test_a_config_file_that_is_no_yaml_is_refused_in_words(runs):
    a, _ = runs
    a.config_path.write_text("optimizer: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_evidence(a)


def test_an_empty_old_record_is_compared_without_a_guess(tmp_path):
    old = RunDir(tmp_path / "old")
    old.path.mkdir()
    RunRecord("tiny", 42, "train").save(old)
    new = write_run(tmp_path / "new")
    for each in compare_records(read_evidence(old), read_evidence(new)):
        assert NOT_RECORDED in (each.here, each.there) or each.kind == "numerics"
