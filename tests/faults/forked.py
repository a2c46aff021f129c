"""Processes forked from a warm one: none of them imports torch anew, nor pytest at all."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from ml_core.errors import MLCoreError

PRELOAD = ["ml_core.pipeline.run", "ml_core.checkpoint", "torch._dynamo"]
FAILED = 3  # the exit code of a child whose call raised what a user can mend


def context() -> Any:
    """Return the way to fork children; its server is started by the first of them."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOAD)
    return found


def call_when_told(pipe: Any, call: Callable[..., None], *arguments: Any) -> None:
    """Say that this child is ready, wait for the word, call, and exit by how it went."""
    pipe.send_bytes(b"ready")
    pipe.recv_bytes()
    try:
        call(*arguments)
    except (OSError, MLCoreError):
        os._exit(FAILED)
    os._exit(0)
