"""A small elastic training through the real command line, on as many ranks as a test likes."""

import hashlib
import os
import signal
import time

import yaml
from ranked_processes import finish_cli, start_cli
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.checkpoint import load_last
from ml_core.runs import RunDir, RunRecord, read_jsonl

STEPS_PER_EPOCH = 12


def write_data(folder):
    """Write the patches; their audit is kept beside them, so that many runs share it."""
    return write_tiny_pcam(folder / "data", num_train=94, num_valid=300)  # the last batch has 6


def write_case(folder, data_path, **training):
    """Write a config with a small CNN: 12 steps an epoch, of four micro-batches each."""
    config = write_config(
        folder / "config.yaml",
        data_path,
        data={"batch_size": 8, "on_findings": "ignore", "augment": {"stain_jitter": 0.1}},
        training={
            "epochs": 2, "numerics": "elastic", "num_threads": 1, "micro_batch": 2,
            "clip_grad_norm": 1.0, "checkpoint_every": 5, "chain_every": 4, **training,
        },
    )  # fmt: skip
    small_cnn = {"name": "cnn", "widths": [8, 16]}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"model": small_cnn}))
    return config


def only_run(folder):
    (path,) = (folder / "runs" / "tiny").iterdir()
    return RunDir(path)


def train(world_size, folder, *arguments):
    """Run `ml-core train` to its end on each rank; return the run."""
    processes = start_cli(world_size, ["train", *arguments], folder)
    codes = finish_cli(processes)
    assert codes == [0] * world_size, (codes, said(folder, world_size))
    return only_run(folder)


def train_until(step, world_size, folder, *arguments, asked=0):
    """Run `ml-core train` until `step` is logged, then send SIGTERM to rank `asked` alone."""
    processes = start_cli(world_size, ["train", *arguments], folder)
    wait_for_step(step, folder, processes)
    os.kill(processes[asked].pid, signal.SIGTERM)
    codes = finish_cli(processes)
    assert set(codes) == {130}, (codes, said(folder, world_size))
    run = only_run(folder)
    assert RunRecord.load(run).status == "interrupted"
    return run


def wait_for_step(step, folder, processes, within_s=120.0):
    ends_at = time.monotonic() + within_s
    while time.monotonic() < ends_at and all(process.is_alive() for process in processes):
        for log in (folder / "runs").glob("tiny/*/steps.jsonl"):
            if log.read_bytes().count(b"\n") >= step:
                return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached: {said(folder, len(processes))}")


def said(folder, world_size):
    return [(folder / f"rank-{rank}.log").read_text()[-2000:] for rank in range(world_size)]


def bits_of(run):
    """Return all that a run computed: the log of every step and epoch, its states, its weights."""
    unlike = ("time", "seconds", "patches_per_s", "train_patches_per_s", "crc")
    logs = [run.steps_log_path, run.metrics_log_path, run.path / "gradients.jsonl"]
    logged = [
        [
            {key: value for key, value in line.items() if key not in unlike}
            for line in read_jsonl(log)
        ]
        for log in logs
    ]
    states = [(link["step"], link["state"], link["chain"]) for link in read_jsonl(run.chain_path)]
    last = load_last(run.checkpoints_dir)
    optimizer = hashlib.sha256((last.path / "optimizer.safetensors").read_bytes()).hexdigest()
    return logged, states, last.weights_sha256, optimizer
