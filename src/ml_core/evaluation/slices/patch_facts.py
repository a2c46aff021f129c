"""From measured patches to the facts that people slice by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_core.evaluation.slices.facts import FACTS, Fact

__all__ = ["FACTS", "HUE_CUT", "Fact", "hue_of", "patch_facts"]

Floats = npt.NDArray[np.float64]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as the audit's contrast and focus
# Degrees, green. Hues run from here once around: of 22,721 real patches that are not grey, all but
# 15 lie from 240 (blue) to 360 (red), where the usual cut would part the neighbours 359 and 1.
HUE_CUT = 120.0
# Below, one grey level more or less turns the hue by 12 degrees and more; 1.2 % of real patches,
# nearly all of them empty glass.
GREY_SATURATION = 0.02
FEWEST_STAIN = 0.02  # optical density; below, both amounts are noise. 17 of 23,000 real patches


def patch_facts(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the facts of `rows` of a patches table, row by row: the columns of FACTS.

    Numbers are float64 with NaN where unknown, names are objects with None. A fact that `rows` do
    not tell of any patch is not a column of the result. `num_copies` and the positions are counted
    and measured among `rows`, so give all that are scored.
    """
    made = {name: _made(rows, name) for name in FACTS}
    known = {
        name: values for name, values in made.items() if values is not None and values.notna().any()
    }
    return pd.DataFrame(known, index=rows.index)


def hue_of(red: Floats, green: Floats, blue: Floats) -> Floats:
    """Return hues in degrees, from HUE_CUT up to HUE_CUT + 360; NaN where a colour is grey.

    The hue of HSV (Smith, SIGGRAPH 1978). Mixing with grey or white does not change it, so the hue
    of a patch's mean colour is that of its tissue, however much glass is around.
    """
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    spread = highest - lowest
    with np.errstate(divide="ignore", invalid="ignore"):
        sixths = np.where(
            highest == red,
            (green - blue) / spread,
            np.where(highest == green, (blue - red) / spread + 2, (red - green) / spread + 4),
        )
        grey = ~(spread >= GREY_SATURATION * highest) | (spread == 0)
    hue: Floats = np.where(grey, np.nan, (60 * sixths - HUE_CUT) % 360 + HUE_CUT)
    return hue


def _made(rows: pd.DataFrame, name: str) -> pd.Series | None:
    """Return the fact `name` of `rows`, or None where they lack a column that it is made of."""
    needed, make = _MADE_OF[name]
    if any(column not in rows for column in needed):
        return None
    return make(rows)


def _number(column: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda rows: rows[column].astype(np.float64)


def _name(column: str) -> Callable[[pd.DataFrame], pd.Series]:
    def make(rows: pd.DataFrame) -> pd.Series:
        values = rows[column].astype(object)
        return values.where(values.notna(), None)

    return make


def _colour(rows: pd.DataFrame) -> list[Floats]:
    return [rows[f"mean_{channel}"].to_numpy(np.float64) for channel in "rgb"]


def _brightness(rows: pd.DataFrame) -> pd.Series:
    return pd.Series(np.tensordot(LUMA, _colour(rows), axes=1), rows.index)


def _hue(rows: pd.DataFrame) -> pd.Series:
    return pd.Series(hue_of(*_colour(rows)), rows.index)


def _saturation(rows: pd.DataFrame) -> pd.Series:
    colour = np.stack(_colour(rows))
    highest, lowest = colour.max(axis=0), colour.min(axis=0)
    # black has no saturation to speak of; HSV calls it 0
    share = np.divide(highest - lowest, highest, out=np.zeros_like(highest), where=highest > 0)
    return pd.Series(np.where(np.isnan(highest), np.nan, share), rows.index)


def _haematoxylin_share(rows: pd.DataFrame) -> pd.Series:
    haematoxylin, eosin = (rows[name].astype(np.float64) for name in ("haematoxylin", "eosin"))
    total = haematoxylin + eosin
    return (haematoxylin / total).where(total >= FEWEST_STAIN)


def _num_copies(rows: pd.DataFrame) -> pd.Series:
    sizes = rows.groupby("content_hash", observed=True)["content_hash"].transform("size")
    return sizes.astype(np.float64)


def _position(column: str) -> Callable[[pd.DataFrame], pd.Series]:
    def make(rows: pd.DataFrame) -> pd.Series:
        along = rows[column].astype(np.float64)
        of_slide = along.groupby(rows["slide"], observed=True)
        first, last = of_slide.transform("min"), of_slide.transform("max")
        return (along - first) / (last - first)  # 0 / 0 is NaN: a slide of one place has no extent

    return make


def _tumour_at(rows: pd.DataFrame) -> pd.Series:
    """Return None where a flag that is needed is unknown, or the two contradict each other."""
    anywhere = rows["tumor_patch"].astype("boolean")
    centre = rows["center_tumor_patch"].astype("boolean")
    said = {
        "none": ~anywhere & ~centre,
        "edge only": anywhere & ~centre,
        "centre": anywhere & centre,
    }
    places = np.full(len(rows), None, object)
    for name, holds in said.items():
        places[holds.fillna(False).to_numpy(np.bool_)] = name
    return pd.Series(places, rows.index, dtype=object)


_MEAN_COLOUR = ("mean_r", "mean_g", "mean_b")
# Fact -> the columns of patches.parquet that it is made of, and how.
_MADE_OF: dict[str, tuple[tuple[str, ...], Callable[[pd.DataFrame], pd.Series]]] = {
    "brightness": (_MEAN_COLOUR, _brightness),
    "contrast": (("std_luma",), _number("std_luma")),
    "hue": (_MEAN_COLOUR, _hue),
    "saturation": (_MEAN_COLOUR, _saturation),
    "haematoxylin": (("haematoxylin",), _number("haematoxylin")),
    "eosin": (("eosin",), _number("eosin")),
    "haematoxylin_share": (("haematoxylin", "eosin"), _haematoxylin_share),
    "focus": (("focus",), _number("focus")),
    "blockiness": (("blockiness",), _number("blockiness")),
    "tissue_share": (("tissue_share",), _number("tissue_share")),
    "white_share": (("share_white",), _number("share_white")),
    "position_x": (("slide", "coord_x"), _position("coord_x")),
    "position_y": (("slide", "coord_y"), _position("coord_y")),
    "slide": (("slide",), _name("slide")),
    "patient": (("patient",), _name("patient")),
    "num_copies": (("content_hash",), _num_copies),
    "tumour_at": (("tumor_patch", "center_tumor_patch"), _tumour_at),
    "label": (("label",), _number("label")),
    "label_belief": (("label_belief",), _number("label_belief")),
    "flags": (("flags",), _name("flags")),
}
assert _MADE_OF.keys() == FACTS.keys()
