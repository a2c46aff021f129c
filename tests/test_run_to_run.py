"""A training started again in another process: the same bits, whatever else the machine does."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.runs import RunDir, read_jsonl

pytestmark = pytest.mark.slow  # run by `make test-levels`

AS_IT_IS = {"PYTHONHASHSEED": "0"}
# What differs between two logins, two folders, two jobs of a queue.
SURROUNDINGS = {
    "another hash seed": {"PYTHONHASHSEED": "12345"},
    "another time zone": {"TZ": "Asia/Tokyo"},
    "another locale": {"LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8"},
    "another home": {"HOME": "/nonexistent"},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A CNN, whose convolutions feel the number of threads, on patches in two threads."""
    folder = tmp_path_factory.mktemp("again")
    path = write_config(
        folder / "config.yaml",
        write_tiny_pcam(folder / "data"),
        data={"on_findings": "ignore"},
        training={"epochs": 1, "num_threads": 2},
    )
    raw = yaml.safe_load(path.read_text())
    raw["model"] = {"name": "cnn", "widths": [16, 32]}
    path.write_text(yaml.safe_dump(raw))
    return path


def train(config, folder, *overrides, environment=AS_IT_IS, cwd=None, before=()):
    """Train in a process of its own; return its chain and the steps it logged."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = [f"output_dir={folder}", *overrides]
    done = subprocess.run(
        [*before, sys.executable, "-m", "ml_core", "train", str(config)]
        + [word for each in settings for word in ("--set", each)],
        env={**os.environ, **environment}, cwd=cwd or folder,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (RunDir(path) for path in (folder / "tiny").iterdir())
    logged = [(each["loss"], each["grad_norm"]) for each in read_jsonl(run.steps_log_path)]
    return list(read_jsonl(run.chain_path)), logged


@pytest.fixture(scope="module")
def first(config, tmp_path_factory):
    return train(config, tmp_path_factory.mktemp("first"))


@pytest.mark.parametrize("what", SURROUNDINGS)
def test_a_fresh_process_in_other_surroundings_has_the_same_bits(config, first, tmp_path, what):
    assert train(config, tmp_path / "run", environment=SURROUNDINGS[what], cwd=tmp_path) == first


def test_the_same_threads_on_one_core_of_a_busy_machine_have_the_same_bits(config, first, tmp_path):
    if shutil.which("taskset") is None:
        pytest.skip("taskset is needed to keep a process on one core")
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        again = train(config, tmp_path / "run", before=("taskset", "--cpu-list", "0"))
    finally:
        busy.kill()
        busy.wait()
    assert again == first


def test_another_number_of_threads_has_other_bits(config, first, tmp_path):
    """The control: these runs do feel what they are said to depend on."""
    chain, logged = train(config, tmp_path / "run", "training.num_threads=1")
    assert len(chain) == len(first[0])
    assert chain != first[0]
    assert logged != first[1]


def test_in_portable_another_number_of_threads_has_the_same_bits(config, tmp_path):
    settings = ["training.numerics=portable", "training.precision=auto"]
    runs = [
        train(config, tmp_path / str(threads), *settings, f"training.num_threads={threads}")
        for threads in (1, 2, 4)
    ]
    assert runs[0] == runs[1] == runs[2]
