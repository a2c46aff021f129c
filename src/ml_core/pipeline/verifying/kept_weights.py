"""The weights in a run's checkpoints against what the run recorded of them while it trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ml_core.checkpoint import Checkpoint, load_checkpoint
from ml_core.errors import CheckpointError
from ml_core.numerics.state_hash import tensor_digests
from ml_core.runs import RunDir, RunRecord, read_jsonl
from ml_core.verification.differences import MISSING, Difference

_ADVICE = "It was changed after the run: put the checkpoint back, or train the run again."


def compare_weights(run: RunDir, record: RunRecord) -> tuple[list[int], list[Difference]]:
    """Return the steps of the checkpoints whose weights are on record, and those that differ.

    On record are the links of the chain, one at the end of each epoch and so of every best
    checkpoint, and the digest of the best weights in run.json. Of a checkpoint in mid-epoch there
    may be neither: only a replay shows that.
    """
    links = {link["step"]: link["tensors"] for link in read_jsonl(run.chain_path)}
    steps: list[int] = []
    differences: list[Difference] = []
    best = (run.checkpoints_dir / "best").resolve()
    if record.best and not best.is_dir():
        differences.append(_missing_best(run))
    for path in sorted(run.checkpoints_dir.glob("step-*")):
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            differences.append(_difference(path, "", "whole", str(error)))
            continue
        step = checkpoint.state["train"]["step"]
        if step in links:
            steps.append(step)
            differences += _against_link(checkpoint, links[step])
        if path.resolve() == best:
            differences += _against_record(checkpoint, record)
    return steps, differences


def _against_link(checkpoint: Checkpoint, link: Mapping[str, str]) -> Iterator[Difference]:
    """Yield the first tensor of the model that is not as the link has it."""
    names = {name: f"model.{name}" for name in checkpoint.model_state}
    found = tensor_digests({names[name]: each for name, each in checkpoint.model_state.items()})
    then = {name: digest for name, digest in link.items() if name.startswith("model.")}
    for name in dict.fromkeys([*then, *found]):
        if then.get(name) != found.get(name):
            here, there = (f"SHA-256 {each.get(name, 'not there')}" for each in (then, found))
            yield _difference(checkpoint.path, f", first tensor {name}", here, there)
            return


def _against_record(checkpoint: Checkpoint, record: RunRecord) -> Iterator[Difference]:
    """Yield a difference where `best` is not the checkpoint that run.json calls the best."""
    then = record.best.get("weights_sha256")
    if then not in (None, checkpoint.weights_sha256):
        here, there = (f"SHA-256 {digest[:16]}" for digest in (then, checkpoint.weights_sha256))
        yield _difference(checkpoint.path, ", the best weights", here, there)


def _missing_best(run: RunDir) -> Difference:
    return Difference(
        "numerics", f"the best checkpoint of {run.name}", "kept", MISSING,
        "Its weights cannot be compared; copy checkpoints/ again.", is_edit=True,
    )  # fmt: skip


def _difference(checkpoint: Path, part: str, here: str, there: str) -> Difference:
    step = int(checkpoint.name.removeprefix("step-"))
    what = f"the checkpoint at step {step} of {checkpoint.parent.parent.name}{part}"
    return Difference("numerics", what, here, there, _ADVICE, is_edit=True)
