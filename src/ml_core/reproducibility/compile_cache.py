"""Whose kernels lie in the folder of compiled code.

A cache filled on a machine with AVX-512 and read on one without gave NaN losses, and other weights
in each of three runs; torch does not notice. So a cache belongs to one torch and one processor.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from ml_core.durable import written_aside
from ml_core.errors import ConfigError, cannot_write
from ml_core.reproducibility.processor import processor_facts, processor_name

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
OWNER_FILE = "ml-core-owner.json"


def named_cache(environment: Mapping[str, str]) -> str | None:
    """Return the folder that the user named, None where the variable holds torch's own default.

    The first optimizer of a process imports torch's compiler, which puts its default into
    `environment`; that a later training in the process finds it there is nobody's wish.
    """
    folder = environment.get(VARIABLE)
    compiler = sys.modules.get("torch._inductor.runtime.cache_dir_utils")
    default = getattr(compiler, "default_cache_dir", lambda: None)()
    return None if folder == default else folder


def refuse_foreign_cache(folder: str | None) -> None:
    """Raise ConfigError unless `folder` (TORCHINDUCTOR_CACHE_DIR) was filled by this torch, here.

    An empty or missing folder is taken into possession: a file in it says whose it is.
    """
    if not folder:
        return
    path, here = Path(folder), _owner()
    there = _read_owner(path / OWNER_FILE)
    if there == here:
        return
    try:
        is_new = not path.exists() or all(each.name.startswith(".") for each in path.iterdir())
        if is_new:
            with written_aside(path / OWNER_FILE) as aside:
                aside.write_text(json.dumps(here) + "\n", encoding="utf-8")
            return
    except OSError as error:
        raise ConfigError(f"{VARIABLE}: {cannot_write(path / OWNER_FILE, error)}") from error
    whose = "nobody knows what" if there is None else ", ".join(there.values())
    raise ConfigError(
        f"{VARIABLE} is {folder}, which holds code compiled for {whose}; here is "
        f"{', '.join(here.values())}. Such code gives wrong numbers without a word. Unset the "
        "variable, or name an empty folder for each version of torch and kind of processor."
    )


def _owner() -> dict[str, str]:
    """Return what compiled code depends on: torch, the processor, and the instruction set used."""
    import torch

    return {
        "torch": f"torch {torch.__version__}",
        "processor": processor_name(processor_facts()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _read_owner(file: Path) -> dict[str, str] | None:
    try:
        owner = json.loads(file.read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in owner.items()}
    except (OSError, ValueError, AttributeError):
        return None
