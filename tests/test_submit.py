"""From what is typed after `ml-core submit` to jobs in the queue, or to why there are none."""

import contextlib
import dataclasses
import json
import sys
from pathlib import Path

import pytest
import typer.main
import yaml
from fake_queue import FakeQueue, fast_run_that_says
from test_architecture import loaded_by
from tiny_pcam import write_config

from ml_core.cli import app
from ml_core.cluster.slurm.accounting import USAGE_FIELDS
from ml_core.cluster.slurm.fields import FIELD_END
from ml_core.cluster.submission import Submission, register_path, remember, remembered
from ml_core.config import Config
from ml_core.errors import ClusterError, ConfigError, MLCoreError, RunError
from ml_core.lease import Lease
from ml_core.pipeline import submit as stage
from ml_core.pipeline.submitting.racing import sole_submitter
from ml_core.preflight.check import Check
from ml_core.reproducibility.code import code_record
from ml_core.runs import RunDir, RunRecord, write_text

SEARCH = {"space": {"optimizer.lr": {"low": 0.001, "high": 0.1}}, "num_trials": 4, "num_workers": 2}


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A Slurm that takes jobs, and a home of its own for the register."""
    fake = FakeQueue(tmp_path)
    monkeypatch.setenv("PATH", f"{fake.bin_dir}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def checks(monkeypatch):
    """What the doctor says, who has tests of his own."""
    said: list[Check] = []
    monkeypatch.setattr(stage, "examine", lambda config, profile, **how: said)
    return said


@pytest.fixture(scope="module")
def code():
    """The commit and what differs from it, asked of git once for all tests."""
    return code_record()


@pytest.fixture
def submit(queue, checks, code, monkeypatch):
    """Submit words; without the fast run, unless asked for."""
    monkeypatch.setattr(stage, "code_record", lambda: code)
    commands = typer.main.get_command(app).commands

    def submit(verb, *arguments, **options):
        given = {"profile": "generic-cpu", "fast_dev_run": False, "command": "ml-core submit ..."}
        words = [str(word) for word in arguments]
        return stage.submit(verb, words, commands=commands, **{**given, **options})

    return submit


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "tiny.yaml", tmp_path / "data")


@pytest.fixture
def search_config(tmp_path):
    return write_config(tmp_path / "search.yaml", tmp_path / "data", search=SEARCH)


def make_run(folder: Path, config: Path, status: str = "interrupted") -> Path:
    """A run that has nothing but its record."""
    run = RunDir.create(folder, "20260102-030405-seed42")
    write_text(run.config_path, Config.load(config).dump_yaml())
    RunRecord(experiment_name="tiny", seed=42, command="ml-core train", status=status).save(run)
    return run.path


# What is refused before anything is written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tain", "CONFIG"), r"takes no 'tain'\. Did you mean 'train'\? Allowed: .*chain"),
        (("data", "CONFIG"), "takes no 'data'"),
        (("submit", "CONFIG"), "takes no 'submit'"),
        (("train",), "which config"),
        (("train", "CONFIG", "--epochs", "3"), "No such option: --epochs"),
        (("tune", "CONFIG", "--workers", "many"), "submit tune: Invalid value for '--workers'"),
        (("train", "nowhere.yaml"), "there is nothing at .*nowhere.yaml"),
        (("evaluate", "runs/nothing"), "there is nothing at .*runs/nothing"),
        (("train", "CONFIG", "--set", "training.epoch=3"), "Did you mean 'epochs'"),
        (("train", "CONFIG", "--elsewhere"), "--elsewhere is of a resumed run"),
        (("train", "CONFIG", "--resume", "."), "keeps its own config"),
        (("train", "--resume", "."), "not a run directory"),
        (("tune", "--resume", "."), "is not a study"),
        (("chain", "--resume", "."), "a chain begins with a CONFIG"),
        (("tune", "CONFIG"), "no section `search`"),
        (("chain", "CONFIG"), "no section `search`"),
    ],
)
def test_what_the_verb_would_refuse_is_refused_now(submit, queue, config, words, message):
    words = [str(config) if word == "CONFIG" else word for word in words]
    with pytest.raises(MLCoreError, match=message):
        submit(*words)
    assert queue.scripts == []


def test_a_training_that_has_ended_is_not_resumed_but_may_be_reported(
    submit, queue, config, tmp_path
):
    run = make_run(tmp_path, config, status="completed")
    with pytest.raises(RunError, match=r"is completed; .* ml-core submit run --resume"):
        submit("train", "--resume", run)
    submit("run", "--resume", run)
    assert f"words=(run --resume {run})" in queue.scripts[0]


def test_an_array_is_of_workers_alone(submit, config):
    with pytest.raises(ConfigError, match="--array is how many jobs search; train does not"):
        submit("train", config, array=3)


def test_all_that_the_doctor_finds_is_told_at_once_and_nothing_is_left(
    submit, queue, checks, config, said, tmp_path
):
    checks += [
        Check("data", "error", "no train_x.h5.", "Get it: ml-core data download"),
        Check("clock", "warning", "61 s behind"),
        Check("memory", "error", "needs 9 GB"),
    ]
    with pytest.raises(ClusterError, match=r"data: no train_x.h5\. Get it.*\n.*memory: needs 9 GB"):
        submit("train", config)
    assert "clock: 61 s behind" in said.text
    assert (queue.scripts, list(tmp_path.glob("runs/*"))) == ([], [])


def test_a_dry_run_prints_the_scripts_and_writes_nothing(submit, queue, search_config, said):
    before = sorted(queue.folder.parent.rglob("*"))
    result = submit("chain", search_config, dry_run=True, fast_dev_run=True)
    assert "this was a dry run" in said.text
    assert next(iter(result["scripts"])) == "chain-tiny-audit.sh"
    assert "#SBATCH --job-name=chain-tiny-report" in said.text
    assert sorted(queue.folder.parent.rglob("*")) == before


def test_a_dry_run_shows_the_script_of_what_would_be_refused_too(submit, checks, config, said):
    checks.append(Check("modules", "error", "there is no 'module' here."))
    with pytest.raises(ClusterError, match="there is no 'module' here"):
        submit("train", config, profile="snellius-gpu", dry_run=True)
    assert "#SBATCH --partition=gpu_a100" in said.text


# What is queued


def test_a_dry_run_looks_at_a_new_job_too_and_not_at_the_one_it_is_typed_in(
    submit, config, monkeypatch
):
    asked = []
    monkeypatch.setattr(stage, "examine", lambda config, profile, **how: asked.append(how) or [])
    submit("train", config, dry_run=True)
    assert asked == [{"submits": True, "needs_slurm": False}]


def test_training_two_seeds_is_an_array_that_reads_the_config_as_it_was(
    submit, queue, config, tmp_path
):
    result = submit("train", "tiny.yaml", "--set", "seeds=[1,2]", "--set", "data.data_path=other")
    (script,) = queue.scripts
    folder = Path(result["folder"])
    assert folder.parent == tmp_path / "runs" / "jobs"
    assert f"words=(train {folder}/config.yaml)" in script
    assert "#SBATCH --array=0-1\n" in script
    assert "0) words+=(--set 'seeds=[1]') ;;\n  1) words+=(--set 'seeds=[2]') ;;" in script
    assert f"runs={tmp_path}/runs/tiny\n" in script  # where it looks for its run, started again
    config.unlink()
    submitted = Config.load(folder / "config.yaml")
    assert (submitted.seeds, submitted.data.data_path) == ((1, 2), tmp_path / "other")


def test_a_submission_can_be_read_back_and_is_listed(submit, config):
    folder = Path(submit("run", config, profile="generic-cpu", ask=["time=02:00:00"])["folder"])
    submission = Submission.load(folder)
    assert remembered() == (submission,)
    (job,) = submission.jobs
    assert (job.id, job.num_tasks, job.log_path("1")) == ("1", None, folder / "run-tiny-1.log")
    assert (submission.cluster, submission.verb) == ("test", "run")
    resume = "ml-core submit run --resume RUN --profile generic-cpu --ask time=02:00:00"
    assert job.go_on.startswith(resume)


def test_what_the_code_has_beside_its_commit_is_kept_and_the_job_looks_for_a_change(
    submit, queue, config, monkeypatch
):
    code = {"commit": "c0ffee", "source_sha256": "5" * 64}
    monkeypatch.setattr(stage, "code_record", lambda: (code, "a difference\n"))
    folder = Path(submit("train", config)["folder"])
    assert (folder / "changes.diff").read_text() == "a difference\n"
    assert Submission.load(folder).commit == "c0ffee"
    assert "5" * 64 in queue.scripts[0]


def test_a_profile_of_ones_own_is_found_again_from_elsewhere(submit, config, tmp_path):
    (tmp_path / "mine.yaml").write_text("base: generic-cpu\npartition: ours\n")
    folder = Path(submit("train", config, profile="mine.yaml")["folder"])
    (job,) = Submission.load(folder).jobs
    assert f"--profile {tmp_path}/mine.yaml" in job.go_on


def test_a_chain_searches_one_study_and_each_job_waits_for_the_one_before(
    submit, queue, search_config, tmp_path
):
    queue.show(j77="RUNNING")
    folder = Path(submit("chain", search_config, array=3, after=["77"])["folder"])
    words = [next(line for line in text.splitlines() if line.startswith("words="))
             for text in queue.scripts]  # fmt: skip
    study = tmp_path / "runs" / "tiny" / f"study-{folder.name.removesuffix('-chain-tiny')}"
    assert words == [
        f"words=(audit {folder}/config.yaml)",
        f"words=(tune {folder}/config.yaml --study {study} --workers 0)",
        f"words=(tune --resume {study} --workers 1)",
        f"words=(select {study})",
        f"words=(evaluate {study}/champion.json)",
        f"words=(report {study}/champion.json)",
    ]
    assert [dependency(text) for text in queue.scripts] == [
        "afterok:77", "afterok:1", "afterok:2", "afterok:3", "afterok:4", "afterok:5",
    ]  # fmt: skip
    assert "#SBATCH --array=0-2\n" in queue.scripts[2]


def dependency(script: str) -> str | None:
    lines = (line.partition("--dependency=")[2] for line in script.splitlines())
    return next((line for line in lines if line), None)


@pytest.mark.parametrize("policy", ["exclude", "ignore"])
def test_what_the_audit_finds_ends_no_chain_whose_config_goes_on_with_it(
    submit, queue, search_config, policy
):
    submit("chain", search_config, "--set", f"data.on_findings={policy}")
    assert "--fail-on nothing)" in queue.scripts[0]
    assert dependency(queue.scripts[1]) == "afterok:1"  # an audit that dies is no audit


def test_tune_makes_the_study_first_and_goes_on_with_one_by_workers_alone(
    submit, queue, search_config, tmp_path
):
    submit("tune", search_config, "--workers", "2")
    assert "--workers 0)" in queue.scripts[0]
    assert "#SBATCH --array=0-1\n" in queue.scripts[1]
    assert "--workers 2)" in queue.scripts[1]
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.json").write_text("{}")
    write_text(study / "config.yaml", Config.load(search_config).dump_yaml())
    submit("tune", "--resume", "study")
    assert f"words=(tune --resume {study} --workers 1)" in queue.scripts[2]


def test_only_what_ranks_share_gets_several_and_only_what_computes_gets_gpus(
    submit, queue, search_config
):
    ask = ["nodes=2", "tasks_per_node=2", "gpus=a100:1"]
    submit("train", search_config, profile="generic-gpu", ask=ask)
    submit("chain", search_config, profile="generic-gpu", ask=ask)
    train, *chain = queue.scripts
    assert "--nodes=2\n#SBATCH --ntasks-per-node=2\n" in train
    assert "--gpus-per-node=a100:2\n" in train
    assert all("--nodes=1\n#SBATCH --ntasks-per-node=1\n" in text for text in chain)
    have_gpus = ["--gpus-per-node=a100:1\n" in text for text in chain]
    assert have_gpus == [False, True, True, True, True, False]


def test_paths_from_where_it_was_typed_reach_the_job_whole(submit, queue, config, tmp_path):
    run = make_run(tmp_path / "my runs", config)
    submit("evaluate", run.relative_to(tmp_path), "--set", "data.data_path=more data")
    (script,) = queue.scripts
    assert f"words=(evaluate '{run}' --set 'data.data_path={tmp_path}/more data')" in script


def test_variables_of_sbatch_do_not_change_what_a_script_says(submit, queue, config, monkeypatch):
    for name in ("TIMELIMIT", "ARRAY_INX", "ACCOUNT", "PARTITION"):
        monkeypatch.setenv(f"SBATCH_{name}", "1")
    submit("train", config)
    assert queue.environment == []


def test_a_refused_job_of_a_chain_takes_those_before_it_back(submit, queue, search_config):
    queue.refuse(3)
    with pytest.raises(
        ClusterError, match=r"chain-tiny-workers: sbatch refuses: .*cancelled: 1, 2\."
    ):
        submit("chain", search_config)
    assert queue.cancelled == ["1 2"]


def test_a_refused_first_job_leaves_nothing(submit, queue, config, tmp_path):
    queue.refuse(1)
    with pytest.raises(ClusterError, match="Invalid partition name"):
        submit("train", config)
    assert (queue.cancelled, list((tmp_path / "runs" / "jobs").iterdir())) == ([], [])


@pytest.mark.parametrize(("number", "cancelled"), [(1, "1"), (2, "1 2")])
def test_what_a_silent_sbatch_may_have_taken_is_looked_for_and_cancelled(
    submit, queue, search_config, monkeypatch, number, cancelled
):
    monkeypatch.setattr("ml_core.cluster.slurm.submit.TIMEOUT_S", 1.0)
    queue.take_silently(number)
    with pytest.raises(ClusterError, match=r"sbatch has not answered .* cancelled: "):
        submit("tune", search_config)
    assert queue.cancelled == [cancelled]


def test_a_controller_that_is_gone_meanwhile_leaves_it_to_the_user(
    submit, queue, config, monkeypatch
):
    monkeypatch.setattr("ml_core.cluster.slurm.submit.TIMEOUT_S", 1.0)
    queue.take_silently(1)
    queue.go_down("for good")
    with pytest.raises(
        ClusterError, match=r"not cancelled \(squeue .*see squeue --me, and scancel"
    ):
        submit("train", config)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({}, "--after 7: Slurm knows no such job"),
        ({"j8": "RUNNING"}, "--after 7: Slurm knows no such job"),
        ({"j7": "FAILED 1"}, "that job is FAILED, so this one would never start"),
        ({"j7_0": "RUNNING", "j7_1": "CANCELLED"}, "that job is CANCELLED"),
        ({"j7_0-1": "PENDING"}, None),
        ({"j7": "COMPLETED"}, None),
    ],
)
def test_what_is_waited_for_must_be_there_and_not_have_failed(
    submit, queue, config, states, message
):
    queue.show(**states)
    if message is None:
        assert submit("train", config, after=["7"])["status"] == "submitted"
        return
    with pytest.raises(ClusterError, match=message):
        submit("train", config, after=["7"])
    assert queue.scripts == []


def test_a_task_is_waited_for_by_its_own_number(submit, queue, config):
    queue.show(**{"j7_0": "FAILED 1", "j7_1-3": "PENDING"})
    assert submit("train", config, after=["7_2"])["status"] == "submitted"
    with pytest.raises(ClusterError, match="--after 7_0: that job is FAILED"):
        submit("train", config, after=["7_0"])


def test_the_accounts_remember_how_what_is_waited_for_ended(submit, queue, config):
    values = dict.fromkeys(USAGE_FIELDS, "")
    for state, is_fine in (("COMPLETED", True), ("TIMEOUT", False)):
        row = FIELD_END.join({**values, "JobID": "7", "State": state}.values())
        queue.write_program("sacct", f"cat <<'END'\n{row}\nEND\n")
        with contextlib.nullcontext() if is_fine else pytest.raises(ClusterError, match="TIMEOUT"):
            submit("train", config, after=["7"])


def test_two_submissions_of_one_second_have_a_folder_each(submit, config):
    folders = {submit("train", config)["folder"] for _ in range(3)}
    assert len(folders) == 3


@pytest.mark.parametrize(("all_well", "status"), [(True, "completed"), (False, "failed")])
def test_waiting_says_whether_all_went_well(submit, config, monkeypatch, all_well, status):
    monkeypatch.setattr(stage, "wait_for_jobs", lambda submission: all_well)
    assert submit("train", config, wait=True)["status"] == status


def test_ctrl_c_ends_the_waiting_and_no_job(submit, queue, config, monkeypatch, said):
    def interrupt(submission):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "wait_for_jobs", interrupt)
    assert submit("train", config, wait=True)["status"] == "interrupted"
    assert "the jobs go on" in said.text
    assert queue.cancelled == []


@pytest.mark.parametrize("verb", ["evaluate", "explain", "report", "compare", "select"])
@pytest.mark.parametrize("place", ["empty", "tiny.yaml"])
def test_what_is_no_run_is_refused_before_it_waits(submit, queue, config, tmp_path, verb, place):
    (tmp_path / "empty").mkdir()
    runs = [make_run(tmp_path, config)] if verb in ("compare", "select") else []
    with pytest.raises(RunError, match=f"{place} is neither a run"):
        submit(verb, *runs, tmp_path / place)
    assert queue.scripts == []


@pytest.mark.parametrize("verb", ["tune", "chain"])
def test_a_study_of_another_config_is_not_begun_again(submit, queue, search_config, tmp_path, verb):
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.json").write_text("{}")
    write_text(study / "config.yaml", Config.load(search_config).dump_yaml())
    submit(verb, search_config, "--study", study)
    before = len(queue.scripts)
    with pytest.raises(RunError, match=r"a study of another config: search\.num_trials"):
        submit(verb, search_config, "--study", study, "--set", "search.num_trials=9")
    with pytest.raises(RunError, match="is no study"):
        submit(verb, search_config, "--study", search_config.parent)
    assert len(queue.scripts) == before


@pytest.mark.parametrize(("ask", "warns"), [("mem_gb=1.5", True), ("mem_gb=2", False)])
def test_a_search_that_is_not_tried_first_is_told_what_it_takes_at_least(
    submit, search_config, said, ask, warns
):
    submit("tune", search_config, ask=[ask])
    assert ("a worker of a search takes 1650 MB or more; asked 1536 MB" in said.text) is warns


# The fast run


@pytest.fixture
def fast_run(queue, monkeypatch):
    """Let the fast run end as it is told."""

    def fast_run(code=0, **measured):
        monkeypatch.setattr(sys, "executable", str(fast_run_that_says(queue, code, **measured)))

    return fast_run


def test_what_fails_in_two_batches_is_not_queued(submit, queue, config, fast_run, said, tmp_path):
    fast_run(code=2)
    with pytest.raises(ClusterError, match=r"--fast-dev-run failed.*: a lot is wrong"):
        submit("train", config, fast_dev_run=True)
    assert "model  mlp" in said.text  # its whole output, which nobody sees where it passes
    assert (queue.scripts, list((tmp_path / "runs" / "jobs").iterdir())) == ([], [])


def test_the_fast_run_tries_the_snapshot(submit, queue, config, fast_run, said):
    fast_run()
    folder = submit("train", config, fast_dev_run=True)["folder"]
    assert (queue.folder / "fast_run").read_text().split() == [
        "-m", "ml_core", "train", f"{folder}/config.yaml", "--fast-dev-run", "--json",
    ]  # fmt: skip
    assert "model  mlp" not in said.text


def test_a_config_for_gpus_is_tried_on_the_cpu_of_a_login_node(
    submit, queue, config, fast_run, said
):
    fast_run(estimated_s=7200.0, estimate="30 epochs")
    submit(
        "train", config, "--set", "training.device=cuda",
        fast_dev_run=True, profile="generic-gpu", ask=["time=01:00:00"],
    )  # fmt: skip
    assert (queue.folder / "fast_run").read_text().endswith("--set\ntraining.device=cpu\n")
    assert "on the CPU, since this machine has no GPU" in said.text
    assert "a GPU takes less" in said.text
    assert not [record for record in said.records if record.levelname == "WARNING"]


def test_less_memory_than_two_batches_took_is_refused(submit, queue, config, fast_run):
    fast_run(peak_rss_mb=3000.0)
    with pytest.raises(ClusterError, match=r"took 3000 MB; asked 2048 MB.*--ask mem_gb=5"):
        submit("train", config, fast_dev_run=True, ask=["mem_gb=2"])
    assert queue.scripts == []


def test_what_a_search_takes_beside_a_trial_is_a_warning(
    submit, queue, search_config, fast_run, said
):
    fast_run(peak_rss_mb=1000.0, estimated_s=60.0, estimate="3 epochs")
    submit("tune", search_config, fast_dev_run=True, ask=["mem_gb=2"])
    (warning,) = [record.message for record in said.records if record.levelname == "WARNING"]
    assert warning.startswith("memory: two batches took 1000 MB, and a worker of a search takes")
    assert "a trial at this pace: 3 epochs, and there are 4 trials; asked 04:00:00" in said.text
    assert len(queue.scripts) == 2


def test_less_time_than_estimated_is_a_warning_with_the_arithmetic(
    submit, queue, config, fast_run, said
):
    fast_run(estimated_s=9000.0, estimate="30 epochs x 300 s = 9,000 s")
    submit("train", config, fast_dev_run=True, ask=["time=01:00:00"])
    (warning,) = [record.message for record in said.records if record.levelname == "WARNING"]
    assert "30 epochs x 300 s = 9,000 s" in warning
    assert "requeued, 2 times" in warning
    assert "--ask time=05:00:00" in warning
    assert len(queue.scripts) == 1


# Two on one run


def test_a_run_with_which_a_queued_job_goes_on_is_not_submitted_again(
    submit, queue, config, tmp_path
):
    run = make_run(tmp_path, config)
    submit("train", "--resume", run)
    queue.show(j1="PENDING")
    with pytest.raises(ClusterError, match=r"job 1 \(PENDING\) goes on with .*seed42 already"):
        submit("train", "--resume", run)
    queue.show(j1="COMPLETED")
    submit("train", "--resume", run)
    assert len(queue.scripts) == 2


def test_a_run_by_another_path_is_the_same_run(submit, queue, config, tmp_path):
    run = make_run(tmp_path, config)
    (tmp_path / "link").symlink_to(run.parent)
    submit("train", "--resume", run)
    queue.show(j1="PENDING")
    for other in (tmp_path / "link" / run.name, run / ".." / run.name):
        with pytest.raises(ClusterError, match=r"job 1 \(PENDING\) goes on with"):
            submit("train", "--resume", other)


def test_a_run_into_which_a_process_writes_is_not_submitted(submit, queue, config, tmp_path):
    run = make_run(tmp_path, config)
    with (
        Lease.take(RunDir(run)),
        pytest.raises(RunError, match=r"another process is training in .*seed42"),
    ):
        submit("train", "--resume", run)
    assert queue.scripts == []


def test_a_run_whose_job_waits_to_be_started_again_is_not_submitted(
    submit, queue, config, tmp_path
):
    run = make_run(tmp_path, config)
    with Lease.take(RunDir(run), job="12"):
        pass
    queue.show(j12="PENDING")
    with pytest.raises(ClusterError, match=r"job 12 \(PENDING\) goes on"):
        submit("train", "--resume", run)


def test_of_two_submissions_at_once_one_is_refused(submit, config, tmp_path):
    run = make_run(tmp_path, config)
    with (
        sole_submitter(run),
        pytest.raises(ClusterError, match="another ml-core submit is about to go on with"),
    ):
        submit("train", "--resume", run)


# The register


def test_the_register_lists_what_is_still_there_newest_first(submit, config):
    first, second, third = (Path(submit("train", config)["folder"]) for _ in range(3))
    (second / "submission.json").unlink()
    older = dataclasses.replace(Submission.load(first), submitted_at="2020-01-01T00:00:00+00:00")
    older.save()
    register = register_path()
    lines = register.read_text().splitlines()
    lines[0] = json.dumps({"submitted_at": older.submitted_at, "folder": str(first)})
    register.write_text("\n".join([*lines, '{"submitted_at": "20', "[]", "3"]))
    assert [each.folder for each in remembered()] == [third, first]
    assert [each.folder for each in remembered(since="2021")] == [third]


def test_a_register_that_cannot_be_written_is_a_warning(submit, config, said, tmp_path):
    (tmp_path / "state").write_text("a file")
    assert submit("train", config)["status"] == "submitted"
    assert "ml-core jobs will not list this one" in said.text


def test_a_user_without_a_home_submits_and_has_an_empty_register(submit, config, said, monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", home)
    assert submit("train", config)["status"] == "submitted"
    assert "Could not determine home directory" in said.text
    assert remembered() == ()


def test_a_record_that_is_none_says_so(submit, config):
    folder = Path(submit("train", config)["folder"])
    (folder / "submission.json").write_text('{"command": 3}')
    with pytest.raises(ClusterError, match=r"submission\.json is no record of a submission"):
        Submission.load(folder)


def test_lines_of_processes_that_write_at_once_stay_whole(submit, config):
    submission = Submission.load(Path(submit("train", config)["folder"]))
    for _ in range(20):
        remember(submission)
    lines = register_path().read_text().splitlines()
    assert len({yaml.safe_load(line)["folder"] for line in lines}) == 1
    assert len(lines) == 21


def test_submitting_needs_no_torch():
    heavy = {"torch", "pandas", "sklearn", "matplotlib", "mlflow"}
    assert loaded_by("import ml_core.pipeline.submit") & heavy == set()
