"""All checks, in the order in which their findings are read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from ml_core.audit.checks.broken import check_broken, find_broken
from ml_core.audit.checks.class_shift import check_class_shift
from ml_core.audit.checks.disagreeing_groups import check_disagreeing_groups
from ml_core.audit.checks.drift import check_drift
from ml_core.audit.checks.duplicates import check_exact_duplicates, check_near_duplicates
from ml_core.audit.checks.identity import check_identity
from ml_core.audit.checks.label_errors import check_label_errors, rank_patches
from ml_core.audit.checks.labels import check_label_balance, check_label_shift
from ml_core.audit.checks.leakage import check_overlaps, check_slides
from ml_core.audit.checks.meta_labels import check_meta_labels
from ml_core.audit.checks.representation import check_representation
from ml_core.audit.checks.shortcuts import check_shortcuts
from ml_core.audit.checks.triggers import check_triggers
from ml_core.audit.reader import PatchReader
from ml_core.data.layout import SPLITS
from ml_core.data.patch_file import PatchFile
from ml_core.findings import Finding

log = logging.getLogger("ml_core.audit")

# Patches of these kinds show nothing: what is left is compared, or every statistic says the same.
_SHOWS_NOTHING = ("non-finite", "out-of-range", "black", "white", "constant")


Check = tuple[str, Callable[[], list[Finding]]]  # what it is called in the log, and the check


class Checked(NamedTuple):
    """What the checks gave."""

    findings: list[Finding]
    not_checked: list[dict[str, str]]  # {"check": what, "why": why not}
    columns: dict[str, npt.NDArray[np.float32]]  # for the table: how far each label is believed


def run_checks(
    patches: pd.DataFrame,
    *,
    files: Mapping[str, PatchFile],
    md5: Mapping[str, str | None],
    labels: pd.DataFrame,
    aside: Mapping[str, npt.NDArray[np.float32]],
    quick: bool,
) -> Checked:
    """Return the findings of every check, and which checks could not be made.

    `patches` is the table of those examined, `labels` that of all patches, without measurements.
    Checks that compare look at sound patches only: those that show something.
    """
    masks = find_broken(patches)
    sound = ~np.logical_or.reduce([masks[kind] for kind in _SHOWS_NOTHING])
    sound_patches = patches[sound].reset_index(drop=True)
    read, read_sound = PatchReader(files, patches), PatchReader(files, sound_patches)
    checks: list[Check] = [
        ("identity", lambda: check_identity(md5, patches)),
        ("representation", lambda: check_representation(files, patches, read)),
        ("broken patches", lambda: check_broken(patches)),
        ("exact duplicates", lambda: check_exact_duplicates(patches)),
        ("slides", lambda: check_slides(labels)),
        ("overlaps", lambda: check_overlaps(labels)),
        ("labels of the meta csv", lambda: check_meta_labels(labels)),
        ("label balance", lambda: check_label_balance(labels)),
        ("label shift", lambda: check_label_shift(labels)),
        ("triggers", lambda: _of_all(check_triggers(sound_patches, read_sound), patches)),
        ("class shift", lambda: check_class_shift(sound_patches)),
        ("drift", lambda: check_drift(sound_patches)),
        ("shortcuts", lambda: check_shortcuts(sound_patches)),
    ]
    columns: dict[str, npt.NDArray[np.float32]] = {}
    with threadpool_limits(limits=1):  # sums in another order would move the last digits
        if not quick:
            features = aside["features"][sound]
            ranked = rank_patches(sound_patches, features)
            columns["label_belief"] = np.full(len(patches), np.nan, np.float32)
            columns["label_belief"][sound] = ranked.prob_given
            checks += [
                (
                    "near duplicates",
                    lambda: check_near_duplicates(patches, aside["descriptors"], read),
                ),
                ("label errors", lambda: check_label_errors(sound_patches, ranked)),
                ("groups", lambda: check_disagreeing_groups(sound_patches, features)),
            ]
        findings = _run(checks)
    return Checked(findings, _not_checked(files, labels, quick), columns)


def _of_all(findings: list[Finding], patches: pd.DataFrame) -> list[Finding]:
    """Return findings about sound patches with their share of all that were examined."""
    num_examined = patches["split"].value_counts()
    return [replace(each, share=each.count / num_examined[each.split]) for each in findings]


def _run(checks: Sequence[Check]) -> list[Finding]:
    findings: list[Finding] = []
    for name, check in checks:
        started = time.monotonic()
        findings += check()
        log.debug("%s checked in %.2f s", name, time.monotonic() - started)
    return findings


def _not_checked(
    files: Mapping[str, PatchFile], labels: pd.DataFrame, quick: bool
) -> list[dict[str, str]]:
    missing = [
        {"check": split, "why": "there is no file of it that can be read"}
        for split in SPLITS
        if split not in files
    ]
    without = [split for split in files if labels["slide"][labels["split"] == split].isna().all()]
    if without:
        where = ", ".join(without)
        missing.append({"check": "slides", "why": f"no meta csv names the slides of {where}"})
    if quick:
        missing += [
            {"check": check, "why": "left out by the quick audit"}
            for check in ("near duplicates", "label errors", "groups of odd labels")
        ]
    return missing
