"""Whether a job runs the code that was there when it was submitted: hours may lie between the two.

A batch script asks on its node, before it starts anything:

    python -m ml_core.cluster.same_code SHA256
"""

from __future__ import annotations

import sys
from pathlib import Path

from ml_core.reproducibility.code import PACKAGE, source_digest


def other_code(submitted_sha256: str, package: Path = PACKAGE) -> str | None:
    """Return what to tell a user whose code is no longer that of the submission; None if it is.

    `submitted_sha256` is `source_sha256` of `code_record`, as it was then.
    """
    found = source_digest(package)
    if found == submitted_sha256:
        return None
    return (
        f"the code in {package} was changed after this was submitted (its SHA-256 was "
        f"{submitted_sha256[:12]} and is {found[:12]}). The job runs it as it is now, and the "
        "run's record says so; for what was submitted: scancel, restore it, submit again."
    )


if __name__ == "__main__":
    if warning := other_code(sys.argv[1]):
        print(f"warning: {warning}")
