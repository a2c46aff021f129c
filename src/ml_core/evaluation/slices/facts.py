"""The facts of a patch that people slice by: what each is, its unit, and its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "category", "text"]


@dataclass(frozen=True)
class Fact:
    """One column of `patch_facts`.

    `kind`: a "number" has an order, a "category" is one name of several, a "text" several names
    with spaces between. `may_suggest` is False for what knows the label, or another model's opinion
    of it: a search for failures that used it would find the errors by themselves.

    `group` is the heading under which slices by it are listed.

    `less` and `more` compare ("darker"), `least` and `most` name the ends ("darkest"); "" for what
    is no number.
    """

    label: str
    unit: str  # "" where there is none
    description: str
    group: str
    kind: Kind = "number"
    may_suggest: bool = True
    less: str = ""
    more: str = ""
    least: str = ""
    most: str = ""


FACTS: dict[str, Fact] = {
    "brightness": Fact(
        "brightness", "grey levels, 0 to 255",
        "luma of the mean colour (ITU-R BT.601)",
        "light", less="darker", more="brighter", least="darkest", most="brightest",
    ),
    "contrast": Fact(
        "contrast", "grey levels, 0 to 127.5",
        "standard deviation of the luma of the pixels",
        "light", less="lower in contrast", more="higher in contrast",
        least="lowest-contrast", most="highest-contrast",
    ),
    "hue": Fact(
        "hue", "degrees, 120 to 480",
        "hue of the mean colour, cut at green: 240 is blue, 300 magenta, 360 red, 420 yellow; "
        "unknown for grey, below a saturation of 0.02",
        "stain", less="bluer", more="redder", least="bluest", most="reddest",
    ),
    "saturation": Fact(
        "saturation", "0 to 1",
        "saturation of the mean colour: (highest - lowest channel) / highest channel",
        "stain", less="paler", more="more colourful", least="palest", most="most colourful",
    ),
    "haematoxylin": Fact(
        "haematoxylin", "optical density",
        "mean amount of haematoxylin, by unmixing the mean optical density",
        "stain", less="weaker in haematoxylin", more="stronger in haematoxylin",
        least="lowest-haematoxylin", most="highest-haematoxylin",
    ),
    "eosin": Fact(
        "eosin", "optical density",
        "mean amount of eosin, by unmixing the mean optical density",
        "stain", less="weaker in eosin", more="stronger in eosin",
        least="lowest-eosin", most="highest-eosin",
    ),
    "haematoxylin_share": Fact(
        "haematoxylin share", "0 to 1",
        "haematoxylin / (haematoxylin + eosin); unknown below a sum of 0.02",
        "stain", less="more eosinophilic", more="more basophilic",
        least="most eosinophilic", most="most basophilic",
    ),
    "focus": Fact(
        "focus", "squared grey levels",
        "variance of the Laplacian of the luma (Pech-Pacheco et al. 2000)",
        "sharpness", less="more blurred", more="sharper", least="most blurred", most="sharpest",
    ),
    "blockiness": Fact(
        "blockiness", "ratio",
        "luma steps across the borders of an 8 x 8 grid over those elsewhere: traces of JPEG",
        "sharpness", less="less blocky", more="blockier", least="least blocky", most="blockiest",
    ),
    "tissue_share": Fact(
        "tissue share", "0 to 1",
        "share of pixels darker than an optical density of 0.15 (Macenko et al. 2009)",
        "tissue", less="emptier", more="fuller", least="emptiest", most="fullest",
    ),
    "white_share": Fact(
        "white share", "0 to 1",
        "share of pixels with every channel at 250 or above",
        "tissue", less="less white", more="whiter", least="least white", most="whitest",
    ),
    "position_x": Fact(
        "position along x", "0 to 1",
        "coord_x between the outermost of these patches of its slide, which are at 0 and 1",
        "position", less="at a lower x", more="at a higher x", least="lowest-x", most="highest-x",
    ),
    "position_y": Fact(
        "position along y", "0 to 1",
        "coord_y between the outermost of these patches of its slide, which are at 0 and 1",
        "position", less="at a lower y", more="at a higher y", least="lowest-y", most="highest-y",
    ),
    "slide": Fact("slide", "", "name of the slide in the meta csv", "slide", "category"),
    "patient": Fact("patient", "", "name of the patient in the meta csv", "patient", "category"),
    "num_copies": Fact(
        "copies", "patches",
        "patches with these very pixels among these, itself included",
        "repeats", may_suggest=False,
        less="rarer", more="more often repeated", least="rarest", most="most often repeated",
    ),
    "tumour_at": Fact(
        "place of tumour", "",
        '"centre" (32 x 32), "edge only" or "none", as the meta csv says',
        "tumour", "category", may_suggest=False,
    ),
    "label": Fact("label", "", "1 tumour, 0 normal", "label", may_suggest=False),
    "label_belief": Fact(
        "belief in the label", "0 to 1",
        "probability of the label by the audit's own classifier, which did not see this patch",
        "label", may_suggest=False,
        less="less believed", more="more believed",
        least="least believed", most="most believed",
    ),
    "flags": Fact(
        "audit flags", "", "findings of the audit that name this patch, with spaces between",
        "audit", "text", may_suggest=False,
    ),
}  # fmt: skip
