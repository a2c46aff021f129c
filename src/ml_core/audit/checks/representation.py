"""How the patches are stored: type, range, channel order, layout, and where splits disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.audit.measures.block import Block
from ml_core.audit.measures.pixel_stats import TISSUE_LUMA, is_constant
from ml_core.data.patch_file import PatchFile
from ml_core.findings import Finding
from ml_core.page.text import percent

Read = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]]

# Patches asked for the order of their channels, and how many of them must hold enough tissue.
_NUM_SAMPLED, _FEWEST_VOTES, _LEAST_TISSUE = 512, 30, 0.3
# In 89 to 92 % of real patches of a split light pixels are redder than dark ones; with red and
# blue swapped in 10 to 13 %.
_PLAUSIBLE_SHARE = 0.35
_BINARISED = 0.9  # share of values at 0 or 255; 99.9 % of real patches have at most 0.16
_MOST = 0.5  # of the patches of a split
_DARKEST = 8  # no tissue patch in 0..255 stays below
_BATCH = 64


def check_representation(
    files: Mapping[str, PatchFile], patches: pd.DataFrame, read: Read
) -> list[Finding]:
    """Return what is wrong with the way each split in `files` is stored.

    Sees types, ranges and layouts, values at the ends of the range only (floats that were scaled
    twice), bytes that hold 0 and 1 (floats cast without scaling), and red and blue swapped, by the
    colours of H&E. It cannot see gamma, another stain (which may look like swapped channels), or
    a range that all patches of all splits share and that fits 0..1, 0..255 or 0..65535 by chance.
    """
    findings = _check_agreement(files)
    for split, file in files.items():
        here = patches[patches["split"] == split]
        findings += _check_bytes(split, file)
        findings += _check_layout(split, file)
        findings += _check_levels(split, here)
        findings += _check_channel_order(split, here, read)
    return findings


def _check_agreement(files: Mapping[str, PatchFile]) -> list[Finding]:
    findings = []
    aspects: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("dtype-differs", "types", {s: str(f.dtype) for s, f in files.items()}),
        ("range-differs", "value ranges", {s: str(f.value_range) for s, f in files.items()}),
    )
    for id_, what, values in aspects:
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{split} {value}" for split, value in values.items())
            findings.append(
                Finding(
                    id_,
                    "warning",
                    f"The splits are stored with different {what}: {listed}.",
                    "Find out what was done to one and not to the other; pack them alike: "
                    "ml-core data pack.",
                    facts=values,
                )
            )
    return findings


def _check_bytes(split: str, file: PatchFile) -> list[Finding]:
    if file.is_bytes:
        return []
    stored = int(np.prod(file.shape)) * file.dtype.itemsize
    needed = int(np.prod(file.shape))
    return [
        Finding(
            "bytes-wasted",
            "warning",
            f"{split}: stored as {file.dtype} in {file.value_range}, {_size(stored)}; grey levels "
            f"need one byte each, {_size(needed)}.",
            "Pack it once and read it faster ever after: ml-core data pack.",
            split=split,
            facts={"bytes stored": stored, "bytes needed": needed},
        )
    ]


def _check_layout(split: str, file: PatchFile) -> list[Finding]:
    if file.is_flat:
        return []
    shuffled = min(file.chunk_rows, len(file))
    return [
        Finding(
            "slow-layout",
            "info" if file.chunk_rows == 1 else "warning",
            f"{split}: stored {file.layout}, in chunks of {file.chunk_rows:,} patches: a shuffled "
            f"batch of {_BATCH} reads and unpacks up to {_BATCH * shuffled:,} patches.",
            "Pack it flat: ml-core data pack.",
            split=split,
            facts={"layout": file.layout, "patches per chunk": file.chunk_rows},
        )
    ]


def _check_levels(split: str, here: pd.DataFrame) -> list[Finding]:
    """Look for values that were scaled twice or not at all, in patches that are not constant."""
    textured = here[~is_constant(here)]
    if textured.empty:
        return []
    findings = []
    binarised = (textured["share_saturated"] > _BINARISED).mean()
    if binarised > _MOST:
        findings.append(
            Finding(
                "binarised",
                "error",
                f"{split}: in {percent(binarised, 0)} of the patches nearly all values are 0 or "
                "255: 0..255 was clipped to 0..1 and multiplied again.",
                "Make the file again from the source; the grey levels are lost.",
                split=split,
                share=float(binarised),
            )
        )
    highest = here[["max_r", "max_g", "max_b"]].max(axis=1)
    dark = ((highest < _DARKEST) & (highest > 0)).mean()
    if dark > _MOST:
        findings.append(
            Finding(
                "nearly-all-dark",
                "error",
                f"{split}: in {percent(dark, 0)} of the patches no value is above {_DARKEST - 1}: "
                "floats in 0..1 were cast to bytes without scaling.",
                "Make the file again from the source; the grey levels are lost.",
                split=split,
                share=float(dark),
            )
        )
    return findings


def _check_channel_order(split: str, here: pd.DataFrame, read: Read) -> list[Finding]:
    votes = np.zeros(0, np.bool_)
    coloured = here.index.to_numpy()[~is_constant(here)]
    if len(coloured):
        step = -(-len(coloured) // _NUM_SAMPLED)
        votes = _light_is_redder(read(coloured[::step]))
    if len(votes) < _FEWEST_VOTES or votes.mean() >= _PLAUSIBLE_SHARE:
        return []
    return [
        Finding(
            "channel-order",
            "warning",
            f"{split}: in {percent(1 - votes.mean(), 0)} of {len(votes)} patches with tissue dark "
            "pixels are redder than light ones; in H&E it is the other way round, so red and blue "
            "seem swapped (BGR), or this is another stain.",
            "Look at the example patches; swap the channels if nuclei look red and fibres blue.",
            split=split,
            share=float(1 - votes.mean()),
        )
    ]


def _light_is_redder(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return, for the patches with enough tissue, whether red minus blue rises with brightness.

    Haematoxylin, in the dark nuclei, takes away more red than blue; eosin hardly any of both.
    """
    votes = []
    for start in range(0, len(levels), 32):
        block = Block(levels[start : start + 32])
        redness = block.pixels[..., 0] - block.pixels[..., 2]
        for luma, red in zip(block.luma, redness, strict=True):
            tissue = luma < TISSUE_LUMA
            if tissue.mean() >= _LEAST_TISSUE:
                light = luma[tissue] - luma[tissue].mean()
                tendency = float(np.dot(light, red[tissue]))
                if tendency != 0:  # grey patches have no say
                    votes.append(tendency > 0)
    return np.array(votes, np.bool_)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
