from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, available
from fault_counts import draw, draws, fault, pytest_runtest_makereport
from tiny_pcam import write_tiny_pcam

MEMORY_MB = 2000  # to Slurm, which counts what trainer and reader share twice; half of it is used

__all__ = ["draw", "draws", "fault", "pytest_runtest_makereport"]

CLUSTERS = ("slurm", "wide_slurm")
AT_ONCE = 7  # trainings on one of the wide nodes


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real Slurm of two nodes, for all tests of the session; see cluster.py."""
    if reason := available():
        pytest.skip(f"no test cluster: {reason}")
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def wide_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same with nodes that say they have room for seven trainings, most of which only wait.

    Seven that begin at once take their time, and a step that begins late has lost its credential.
    """
    if reason := available():
        pytest.skip(f"no test cluster: {reason}")
    wide = {"cpus": AT_ONCE, "memory_mb": AT_ONCE * MEMORY_MB, "requeue_delay_s": 15}
    with Cluster(tmp_path_factory.mktemp("wide_slurm"), **wide) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def no_job_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Cancel what a test has left in the queue, so that the next one finds both nodes idle."""
    yield
    for name in CLUSTERS:
        if name in request.fixturenames:
            cluster = request.getfixturevalue(name)
            cluster.run("scancel", "--user=root")
            cluster.wait_for_idle()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patches for trainings of a second."""
    import training_job  # with torch, which other tests of this folder do without

    folder = tmp_path_factory.mktemp("tiny_data")
    return write_tiny_pcam(folder / "data", training_job.NUM_TRAIN, training_job.NUM_VALID)


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> tuple[str, str, str]:
    """What the training of `training_job` computes where nobody disturbs it."""
    import training_job

    config = training_job.config_in(tmp_path_factory.mktemp("straight") / "job", tiny_data)
    return training_job.final_bits(training_job.train_here(config))


@pytest.fixture
def training(tmp_path: Path, tiny_data: Path) -> Callable[..., Any]:
    """`training(slurm, **sections)`: one more job that is ready to be submitted."""
    import training_job

    def make(slurm: Cluster, **sections: dict[str, Any]) -> training_job.TrainingJob:
        folder = tmp_path / f"job-{len(list(tmp_path.iterdir()))}"
        return training_job.TrainingJob(
            slurm, training_job.config_in(folder, tiny_data, **sections)
        )

    return make
