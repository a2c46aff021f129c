"""Which patches belong together, being of one patient or one slide: from the meta csv."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.errors import DataError

GROUPS = ("patient", "wsi")  # the wider first: a patient may have several slides
_WHY = (
    "Patches of one slide share its stain, scanner and neighbouring tissue: divided one by one, "
    "valid and test hold near copies of what was trained on, and their scores say nothing about "
    "a new slide."
)


def find_groups(
    meta: pd.DataFrame | None, by: str | None, where: str
) -> tuple[str, npt.NDArray[np.str_]]:
    """Return what patches are grouped by, "patient" or "wsi", and the group of each, (N,).

    Unless `by` says which, patients where `meta` has them, else slides. Raises DataError where
    `meta` has neither or leaves some empty, and where a slide belongs to two patients.
    """
    if by is not None and by not in GROUPS:
        raise DataError(f"--by {by}: patches are grouped by {' or '.join(GROUPS)}.")
    known = [] if meta is None else [n for n in GROUPS if n in meta and (meta[n] != "").any()]
    if meta is None or not known:
        lacks = (
            "there is no meta csv" if meta is None else "its meta csv has neither wsi nor patient"
        )
        raise DataError(
            f"{where}: {lacks}, so nobody knows which patches are of one slide. {_WHY} Add the "
            "column, name the file with --meta, or insist with --ungrouped."
        )
    chosen = by or known[0]
    if chosen not in known:
        raise DataError(f"{where}: the meta csv has no {chosen}; it has: {', '.join(known)}.")
    groups = meta[chosen].to_numpy(np.str_)
    empty = groups == ""
    if empty.any():
        raise DataError(
            f"{where}: {empty.sum():,} of {len(groups):,} patches have no {chosen}, first row "
            f"{np.flatnonzero(empty)[0]}. Each needs one; leave such patches out when packing."
        )
    if chosen == "patient" and "wsi" in known:
        _check_slides(meta, where)
    return chosen, groups


def _check_slides(meta: pd.DataFrame, where: str) -> None:
    """Raise DataError where a slide is of two patients: it could be in two splits."""
    slides = meta.loc[meta["wsi"] != "", ["wsi", "patient"]].drop_duplicates()
    shared = slides[slides["wsi"].duplicated(keep=False)]
    if len(shared):
        slide = shared["wsi"].iloc[0]
        patients = ", ".join(shared.loc[shared["wsi"] == slide, "patient"])
        raise DataError(
            f"{where}: {shared['wsi'].nunique():,} slides belong to several patients, first "
            f"'{slide}' to {patients}. Correct the meta csv, or group by slide: --by wsi."
        )
