"""One hash for the training of the default CNN, committed: every row must give it, bit for bit."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ml_core.solver.witness import Witness, run_witness

pytestmark = pytest.mark.slow  # run by `make test-levels`

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "golden_hash.py"
LOWEST = {
    "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE",
}  # fmt: skip
# What a row changes: variables, arguments of the script, number of ranks.
ROWS = {
    "1 thread": ({}, ["--threads", "1"], 1),
    "2 threads": ({}, ["--threads", "2"], 1),
    "4 threads": ({}, ["--threads", "4"], 1),
    "ATen default": ({"ATEN_CPU_CAPABILITY": "default"}, [], 1),
    "ATen AVX2": ({"ATEN_CPU_CAPABILITY": "avx2"}, [], 1),
    "ATen AVX-512": ({"ATEN_CPU_CAPABILITY": "avx512"}, [], 1),
    "oneDNN SSE4.1": ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, [], 1),
    "oneDNN AVX2": ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, [], 1),
    "oneDNN AVX-512": ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, [], 1),
    "oneDNN off": ({}, ["--mkldnn", "off"], 1),
    "MKL compatible": ({"MKL_CBWR": "COMPATIBLE"}, [], 1),
    "2 ranks": ({}, [], 2),
    "4 ranks": ({}, [], 4),
    "micro-batches reversed": ({}, ["--reverse"], 1),
    "all lowest, 2 ranks, reversed": (LOWEST, ["--reverse"], 2),
    "ATen AVX2, oneDNN off, 4 threads": (
        {"ATEN_CPU_CAPABILITY": "avx2"}, ["--mkldnn", "off", "--threads", "4"], 1,
    ),
}  # fmt: skip


def load_script():
    spec = importlib.util.spec_from_file_location("golden_hash", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


def report(variables, arguments, num_ranks=1, timeout=550):
    """Return what the script says in a process of its own, one thread unless told otherwise."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **variables,
    }  # fmt: skip
    start = [sys.executable]
    if num_ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    done = subprocess.run(
        [*start, str(SCRIPT), *arguments],
        env=environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.stdout.strip(), done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def golden():
    return json.loads(script.GOLDEN_PATH.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lowest():
    """The report of the smaller training at the lowest instruction sets."""
    return report(LOWEST, ["--optimizer", "sgd"])


# ---- three rows of every run of the tests --------------------------------------------------------


def test_every_part_gives_the_committed_bits_here(golden):
    assert script.run_parts(torch.device("cpu")) == golden["parts"]


def test_the_lowest_instruction_sets_give_the_committed_bits(lowest):
    assert lowest["machine"]["cpu_capability"] == "DEFAULT"
    assert lowest["differences"] == []


def test_four_threads_without_onednn_and_backwards_give_the_committed_bits(golden, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    try:
        torch.set_num_threads(4)
        found = run_witness(golden["sgd"]["recipe"], reverse=True)
    finally:
        torch.set_num_threads(before)
    assert Witness.from_dict(golden["sgd"]["witness"]).first_difference(found) is None


def test_torch_s_own_parts_differ_at_the_lowest_instruction_set(lowest):
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this machine has no other instruction set to compare with")
    here = script.run_parts(torch.device("cpu"), native=True)
    assert {name for name in script.PARTS if here[name] != lowest["native"][name]} >= {
        "initial weights", "optimizers", "cross entropy",
    }  # fmt: skip


# ---- the committed file --------------------------------------------------------------------------


@pytest.mark.parametrize("name", script.RECIPES)
def test_the_committed_recipes_are_those_of_the_script(golden, name):
    assert golden[name]["recipe"] == json.loads(json.dumps({**script.RECIPES[name]}))


@pytest.mark.parametrize("name", script.RECIPES)
def test_a_committed_prediction_does_not_depend_on_its_batch(golden, name):
    witness = Witness.from_dict(golden[name]["witness"])
    assert witness.predictions == witness.predictions_one_by_one
    assert witness.hash == golden[name]["witness"]["hash"]


def test_the_script_says_what_is_not_as_committed(golden):
    found = {
        "known_answers": "as they should be",
        "parts": dict(golden["parts"]),
        "sgd": dict(golden["sgd"]["witness"]),
    }
    assert script.compare(found, golden, ["sgd"]) == []
    found["parts"]["norm"], found["sgd"]["final_state"] = "0", "0"
    found["known_answers"] = "wrong"
    assert script.compare(found, golden, ["sgd"]) == [
        "known answers: wrong",
        "part: norm",
        "sgd: the weights or the optimizer state after the last step differ",
    ]


# ---- the whole matrix ----------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
def test_every_row_gives_the_committed_bits(row):
    variables, arguments, num_ranks = ROWS[row]
    found = report(variables, arguments, num_ranks)
    assert found["differences"] == []
    assert {"adamw", "sgd"} <= found.keys()  # both were trained


@pytest.fixture(scope="module")
def native():
    """The report of torch's own arithmetic, in one thread and nothing else changed."""
    return report({}, ["--native"])


@pytest.mark.parametrize("row", ["ATen default", "oneDNN SSE4.1", "MKL compatible", "2 threads"])
def test_torch_s_own_arithmetic_differs_over_the_rows(row, native):
    variables, arguments, _ = ROWS[row]
    found = report(variables, [*arguments, "--native"])
    for name in script.RECIPES:
        assert found[name]["hash"] != native[name]["hash"]


def test_torch_s_own_predictions_depend_on_their_batch(native):
    for name in script.RECIPES:
        assert native[name]["predictions"] != native[name]["predictions_one_by_one"]
