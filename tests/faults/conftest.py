from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_counts import draw, draws, fault, pytest_runtest_makereport

__all__ = ["draw", "draws", "fault", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def mlflow_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `real_mlflow` keeps its database, artifacts and log."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="session")
def real_mlflow(mlflow_dir: Path) -> Iterator[Any]:
    """A real MLflow server, one for all tests, since it takes seconds to start."""
    from mlflow_server import running_server

    with running_server(mlflow_dir) as server:
        yield server
