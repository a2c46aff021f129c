"""A disk that is full, at every size: the job ends in words, and goes on when there is space."""

import subprocess
from pathlib import Path

import pytest
from forked import context
from one_job import call_and_exit, check_logs, do_job, newest_run
from run_bits import final_bits
from test_kills import PATIENCE_S, Jobs
from tiny_pcam import write_config
from traced_child import tmpfs

from ml_core.checkpoint import load_last
from ml_core.config import Config
from ml_core.errors import CheckpointError
from ml_core.pipeline.train import train

pytestmark = pytest.mark.faults

SMALLEST, LARGEST = 16, 2600  # KiB: from too small for a config to enough for the whole job


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> Jobs:
    return Jobs(tmp_path_factory.mktemp("jobs"))


def finish(config: Path) -> int:
    child = context().Process(target=call_and_exit, args=(do_job, config))
    child.start()
    child.join(PATIENCE_S)
    assert child.exitcode is not None, "the job hangs"
    return int(child.exitcode)
