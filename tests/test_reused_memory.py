"""What a process frees stays its own, and a training loads no more than it needs."""

import subprocess
import sys

import pytest

# How many pages the system is asked for by three steps of the default network, after two of them.
FAULTS = """
import resource, sys, torch
from ml_core.models import build_model
from ml_core.reused_memory import reuse_memory
if sys.argv[1:] == ["reuse"]:
    assert reuse_memory()
torch.set_num_threads(1)
model, patches = build_model("cnn"), torch.zeros(16, 3, 96, 96, dtype=torch.uint8)
for _ in range(2):
    model(patches).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    model(patches).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_that_was_freed_is_used_again_without_the_system():
    asked_of_the_system, kept = int(run(FAULTS)), int(run(FAULTS, "reuse"))
    assert kept < asked_of_the_system / 4


def test_a_training_loads_neither_tables_nor_plots_nor_statistics():
    loaded = run("import sys, ml_core.pipeline.train; print(*sys.modules)").split()
    assert {"pandas", "scipy", "matplotlib", "sklearn", "torch._dynamo"} & set(loaded) == set()
