"""A slice: a named group of patches that is defined by the patches, never by the model's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["standard", "own", "discovered"]


@dataclass(frozen=True, eq=False)
class Slice:
    """Which patches of a split belong together, and why.

    `name` is unique among the slices of its kind; `group` is what it is listed under. `where` is
    the query that gives `mask`, in the syntax of `compile_query`, or "" where no query can (a
    cluster). `mask` is bool (N,), one per row of the facts it was made of. `said` is in words what
    the patches have in common, with everything that a reader of the slice must know.
    """

    name: str
    group: str
    where: str
    mask: npt.NDArray[np.bool_]
    kind: Kind = "standard"
    said: str = ""

    def __len__(self) -> int:
        """Return the number of patches in the slice."""
        return int(np.count_nonzero(self.mask))
