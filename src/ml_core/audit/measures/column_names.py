"""Columns of the patches table, by what they measure."""

MEAN_COLOUR = ("mean_r", "mean_g", "mean_b")
COLOUR = (
    *(f"{kind}_{channel}" for kind in ("min", "max", "mean", "std") for channel in "rgb"),
    "std_luma",
    "share_black",
    "share_white",
    "share_saturated",
    "tissue_share",
    "haematoxylin",
    "eosin",
)
SHARPNESS = ("focus", "blockiness")
