"""What this audit cannot see, whatever the data: said, so that silence is not taken for proof."""

LIMITS = (
    (
        "Whether a label is right.",
        "It ranks labels that disagree with what patches look like. A pathologist decides; a "
        "label that is wrong in the same way everywhere looks right.",
    ),
    (
        "Who the patches are from, without a meta file.",
        "Neighbouring cuts of one tumour can lie in two splits and share no pixel. Only slide or "
        "patient ids can show that.",
    ),
    (
        "Duplicates that were changed more.",
        "Flips, quarter turns, one-pixel shifts, JPEG and small changes of brightness are found; "
        "a crop, a free rotation, another zoom or another stain is not.",
    ),
    (
        "A trigger that hides well.",
        "A block or stripe of odd pixels that goes with a label is found; one that is half "
        "transparent or was compressed, a faint pattern over the whole patch, or one in a handful "
        "of patches, may not be.",
    ),
    (
        "Whether the data are like those it is meant for.",
        "Splits are compared with each other, not with the scanner, the stain or the patients of "
        "the day of use.",
    ),
)
