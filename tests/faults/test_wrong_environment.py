"""An environment in which the numbers would be others is refused, by name, before a step."""

import json
import os
import subprocess
import sys

import pytest
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.errors import ConfigError, MLCoreError
from ml_core.reproducibility import prepare_numerics, refuse_other_numerics
from ml_core.runs import RunDir, RunRecord, read_jsonl

pytestmark = pytest.mark.faults

# (variable, value, level, threads): the variable must be in the message.
REFUSED = (
    ("OMP_THREAD_LIMIT", "1", "fast", 2),
    ("MKL_DYNAMIC", "TRUE", "fast", 1),
    ("OMP_DYNAMIC", "true", "elastic", 2),
    ("OMP_MAX_ACTIVE_LEVELS", "0", "fast", 2),
    ("TORCHINDUCTOR_CACHE_DIR", None, "fast", 1),
    ("OMP_THREAD_LIMIT", "2", "portable", 4),
)
# Another instruction set, to which these variables bind torch's kernels and oneDNN's.
OTHER_NUMBERS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
}
TAKEN_AWAY = {name for name, *_ in REFUSED} | {*OTHER_NUMBERS, "DNNL_MAX_CPU_ISA"}


def do(*arguments, **environ):
    bare = {name: value for name, value in os.environ.items() if name not in TAKEN_AWAY}
    command = [sys.executable, "-m", "ml_core.cli", *map(str, arguments)]
    # A convolution whose team is not complete waits for ever: 60 s is long enough to call it so.
    return subprocess.run(
        command, env={**bare, **environ}, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny_pcam(tmp_path_factory.mktemp("tiny") / "data")


def config_for(folder, data, level, num_threads, **training):
    folder.mkdir(parents=True, exist_ok=True)
    training = {"epochs": 2, "numerics": level, "num_threads": num_threads, **training}
    return write_config(folder / "config.yaml", data, training=training)


def foreign_cache(folder):
    """Make a compile cache as another kind of machine leaves it."""
    cache = folder / "foreign-cache"
    (cache / "ab").mkdir(parents=True)
    (cache / "ab" / "cab.cpp").write_text("// compiled for another instruction set\n")
    return cache


def num_steps(folder):
    return sum(len(list(read_jsonl(log))) for log in folder.rglob("steps.jsonl"))


def test_training_refuses_an_environment_it_cannot_honour(tmp_path, data, draws, fault):
    variables = fault(19, "a variable with which the level cannot be honoured")
    for name, value, level, num_threads in REFUSED[: draws(full=len(REFUSED), short=2)]:
        folder = tmp_path / name / level
        config = config_for(folder, data, level, num_threads)
        value = value or str(foreign_cache(tmp_path))
        with variables.case(f"{name}={value}, {level}, {num_threads} threads"):
            done = do("train", config, **{name: value})
            assert done.returncode == 2, done.stdout + done.stderr
            assert name in done.stderr and "Traceback" not in done.stderr
            assert num_steps(folder) == 0


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, data):
    """A run of two epochs that stopped after its first."""
    folder = tmp_path_factory.mktemp("interrupted")
    config = config_for(folder, data, "fast", 1)
    done = do("train", config, "--set", "training.epochs=1")
    assert done.returncode == 0, done.stderr
    (run,) = (RunDir(path) for path in (folder / "runs" / "tiny").iterdir())
    record = RunRecord.load(run)
    record.status = "interrupted"
    if record.config:
        record.config["training"]["epochs"] = 2
    record.save(run)
    run.config_path.write_text(run.config_path.read_text().replace("epochs: 1", "epochs: 2"))
    return run


def test_a_run_is_not_resumed_where_its_numbers_would_be_others(interrupted, draws, fault):
    others = fault(19, "a run resumed under another instruction set")
    steps = interrupted.steps_log_path.read_bytes()
    for name, value in list(OTHER_NUMBERS.items())[: draws(full=3, short=1)]:
        with others.case(f"{name}={value}"):
            done = do("train", "--resume", interrupted.path, **{name: value})
            assert done.returncode == 2, done.stdout + done.stderr
            assert name in done.stderr and "Traceback" not in done.stderr
            assert interrupted.steps_log_path.read_bytes() == steps
    with others.case("nothing else: goes on"):
        done = do("train", "--resume", interrupted.path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_gpu_without_its_workspace_or_with_tf32_is_refused(monkeypatch, fault):
    variables = fault(19, "a GPU whose cuBLAS workspace or float32 is not as the level needs")
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    for name in TAKEN_AWAY:
        monkeypatch.delenv(name, raising=False)
    wrong = {
        "CUBLAS_WORKSPACE_CONFIG": [None, ":0:0", "4096:8"],
        "NVIDIA_TF32_OVERRIDE": ["1"],
    }
    for name, values in wrong.items():
        for value in values:
            monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
            if value is None:
                monkeypatch.delenv(name)
            else:
                monkeypatch.setenv(name, value)
            with variables.case(f"{name}={value}"), pytest.raises(ConfigError, match=name):
                prepare_numerics("elastic", 1, "cuda:0")


def test_each_figure_of_the_record_that_differs_is_named(interrupted, fault):
    figures = fault(19, "each figure of a run's numerics that differs at its resume")
    then = RunRecord.load(interrupted).numerics
    assert then, "the run has no record of its numerics"
    said = {
        ("libraries", "torch"): "the version of torch",
        ("libraries", "mkl"): "the version of MKL",
        ("libraries", "onednn"): "the version of oneDNN",
        ("processor", "aten"): "torch's instruction set",
        ("processor", "onednn"): "oneDNN's instruction set",
    }
    for (section, name), words in said.items():
        now = json.loads(json.dumps(then))
        now[section][name] = "another"
        with (
            figures.case(f"{section}.{name}"),
            pytest.raises(MLCoreError, match=f"{words} was .* and is another"),
        ):
            refuse_other_numerics(then, now, "fast")
    refuse_other_numerics(then, then, "fast")
