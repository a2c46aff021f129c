"""Two runs, or a run and the present, compared: every difference, causes before effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ml_core.verification.compare_code import compare_code
from ml_core.verification.compare_config import compare_config
from ml_core.verification.compare_data import compare_data
from ml_core.verification.compare_logs import compare_logs
from ml_core.verification.compare_machines import compare_hardware, compare_packages
from ml_core.verification.differences import Difference
from ml_core.verification.run_evidence import RunEvidence

# In the order of KINDS.
_CAUSES: tuple[Callable[[RunEvidence, RunEvidence], Iterator[Difference]], ...] = (
    compare_code,
    compare_config,
    compare_data,
    compare_packages,
    compare_hardware,
)


def compare_records(a: RunEvidence, b: RunEvidence) -> list[Difference]:
    """Return in what `a` (here) and `b` (there) differ, in the order of KINDS; [] where nothing.

    The bits (kind numerics) are compared where both have logs: as many steps as the shorter one
    has, unless both are over. Raises RunError for a damaged log.
    """
    differences = [each for compare in _CAUSES for each in compare(a, b)]
    if a.logs is not None and b.logs is not None:
        up_to_shorter = not (a.is_over and b.is_over)
        differences += compare_logs(a.logs, b.logs, up_to_shorter=up_to_shorter)
    return differences
