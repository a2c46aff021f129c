"""Whether the labels are those that the meta csv states."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ml_core.findings import Finding
from ml_core.page.text import percent

# Meta csv and labels of PCam state one fact twice. A slip may concern a few patches; of two files
# that do not belong together, half of the balanced labels differ.
_MANY_DISAGREE = 0.01
_MAX_EXAMPLES = 12


def check_meta_labels(patches: pd.DataFrame) -> list[Finding]:
    """Return a finding per split where `center_tumor_patch` of the meta csv is not the label.

    PCam's label is by definition that flag, so the two files then do not belong together or one
    was changed; which one, it cannot tell. Patches where either is unknown are skipped.
    """
    if "center_tumor_patch" not in patches:
        return []
    flag = patches["center_tumor_patch"].astype("boolean")
    label, index = patches["label"].to_numpy(), patches["index"].to_numpy()
    known = flag.notna().to_numpy() & (label >= 0)
    differs = known & (flag.fillna(False).to_numpy(np.bool_) != (label == 1))
    findings = []
    for split in patches["split"].unique():
        here = (patches["split"] == split).to_numpy()
        wrong, num_known = np.flatnonzero(here & differs), int((here & known).sum())
        if len(wrong) == 0:
            continue
        share = len(wrong) / num_known
        findings.append(
            Finding(
                id="meta-labels-disagree",
                severity="error" if share >= _MANY_DISAGREE else "warning",
                message=f"{split}: the label of {len(wrong):,} of {num_known:,} patches "
                f"({percent(share)}) is not what center_tumor_patch of the meta csv says.",
                action="Check that label file and meta csv are those of this split and in the "
                "same order; slides and coordinates are as doubtful as the labels until then.",
                split=str(split),
                count=len(wrong),
                share=share,
                indices=tuple(index[wrong].tolist()),
                examples=tuple(((str(split), int(i)),) for i in index[wrong[:_MAX_EXAMPLES]]),
            )
        )
    return findings
