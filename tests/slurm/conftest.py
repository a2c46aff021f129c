import pytest
from cluster import Cluster, available


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A real Slurm of two nodes, for all tests of the session; see cluster.py."""
    if reason := available():
        pytest.skip(f"no test cluster: {reason}")
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def no_job_left(request):
    """Cancel what a test has left in the queue, so that the next one finds both nodes idle."""
    yield
    if "slurm" in request.fixturenames:
        cluster = request.getfixturevalue("slurm")
        cluster.run("scancel", "--user=root")
        cluster.wait_for_idle()
