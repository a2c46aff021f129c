"""Checkpoints that are whole or not there, and are verified before a byte of them is used.

    checkpoints/
        step-00000790/   model.safetensors  optimizer.safetensors  state.json  MANIFEST.json
        step-00000869/   ...
        best -> step-00000790
        last -> step-00000869

A checkpoint is written aside, fsynced and renamed, so a crash leaves the old one or the new one.
MANIFEST.json holds the SHA-256 of every other file: neither torch's zip nor safetensors notices a
flipped bit (976 and 996 of 1,000 flips loaded silently wrong), the digests notice every one.
One process writes to the directory at a time: with a lease each checkpoint carries its writer's
token, and one written after another process had taken over is refused. Nothing is pickled.
"""

from ml_core.checkpoint.files import (
    FORMAT,
    MANIFEST_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    Checkpoint,
    load_checkpoint,
    sha256_of,
)
from ml_core.checkpoint.generations import KEEP, load_best, load_last, save_checkpoint
from ml_core.checkpoint.optimizer_state import load_optimizer_state

__all__ = [
    "FORMAT",
    "KEEP",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "OPTIMIZER_FILE",
    "STATE_FILE",
    "Checkpoint",
    "load_best",
    "load_checkpoint",
    "load_last",
    "load_optimizer_state",
    "save_checkpoint",
    "sha256_of",
]
