import colorsys

import numpy as np
import pandas as pd
import pytest
from measured import measure_table
from real_patches import read_patches

from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.slices.facts import FACTS
from ml_core.evaluation.slices.join import join_patches
from ml_core.evaluation.slices.patch_facts import HUE_CUT, hue_of, patch_facts


def one_colour(*colours):
    """Return the table of patches that are each of one colour."""
    return measure_table(np.stack([np.full((96, 96, 3), colour, np.uint8) for colour in colours]))


def predictions_of(patches, split="valid", order=None):
    """Return predictions for the rows of one split of a table, in the given order."""
    rows = patches[patches["split"] == split]
    rows = rows if order is None else rows.iloc[order]
    num = len(rows)
    return Predictions(
        split=split,
        index=rows["index"].to_numpy(np.int64),
        y_true=rows["label"].to_numpy(np.int64),
        y_prob=np.full(num, 0.5),
        logit=np.zeros(num),
    )


def two_splits():
    """Return a table of train and valid, 6 patches each, whose brightness names them."""
    parts = [
        one_colour(*[(level + i,) * 3 for i in range(6)]).assign(split=split)
        for split, level in (("train", 10), ("valid", 100))
    ]
    return pd.concat(parts, ignore_index=True)


def test_patches_are_joined_in_the_order_of_the_predictions_and_never_from_another_split():
    patches = two_splits().sample(frac=1, random_state=0)
    order = [4, 1, 5]
    rows = join_patches(predictions_of(patches, order=order), patches, "patches.parquet")
    assert rows["index"].tolist() == patches[patches.split == "valid"].iloc[order]["index"].tolist()
    assert (rows["split"] == "valid").all()
    assert rows["mean_r"].tolist() == (100.0 + rows["index"]).tolist()
    assert list(rows.index) == [0, 1, 2]


def test_predictions_without_labels_are_joined_all_the_same():
    patches = two_splits()
    unlabelled = Predictions("valid", np.array([3]), None, np.array([0.5]), np.array([0.0]))
    assert join_patches(unlabelled, patches, "p")["mean_g"].tolist() == [103.0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p[p.split == "train"], r"no patch of split 'valid'; it has: train\."),
        (lambda p: p[p.mean_r != 103], r"lacks 1 of the 6 patches .* \(index 3\)"),
        (lambda p: p[p.split == "train"].assign(split="valid", index=90 + np.arange(6)),
         r"lacks 6 of the 6 .*\(index 0, 1, 2, 3, 4, \.\.\.\)"),
        (lambda p: pd.concat([p, p.iloc[[7]]]), r"1 patches .* more than once \(index 1\)"),
        (lambda p: p.assign(label=p.label.where(p.mean_r != 104, 1)),
         r"1 of the 6 .* another label .* index 4: 1 there, 0 in the predictions"),
        (lambda p: p.drop(columns=["label", "index"]), "lacks the columns index, label; it has"),
        (lambda p: pd.DataFrame({"a": [1]}), "no patches table: .* it has a"),
        (lambda p: p.assign(index=p["index"] + 0.0), "index is of type float64"),
    ],
)  # fmt: skip
def test_tables_that_do_not_match_are_refused_with_what_does_not(change, said):
    patches = two_splits()
    predictions = predictions_of(patches)
    with pytest.raises(RunError, match=rf"^audit/patches\.parquet.*{said}.* Audit the data"):
        join_patches(predictions, change(patches), "audit/patches.parquet")


def test_hues_are_those_of_hsv_and_run_from_green_through_blue_and_red():
    colours = np.random.default_rng(0).integers(0, 256, (300, 3))
    hue = hue_of(*colours.T.astype(float))
    for colour, here in zip(colours, hue, strict=True):
        there, saturation, _ = colorsys.rgb_to_hsv(*colour / 255)
        if saturation >= 0.02:
            assert here % 360 == pytest.approx(360 * there)
            assert HUE_CUT <= here < HUE_CUT + 360


def test_reds_on_both_sides_of_zero_degrees_are_neighbours():
    facts = patch_facts(one_colour((200, 100, 104), (200, 104, 100), (100, 100, 200)))
    assert facts["hue"].tolist() == pytest.approx([357.6, 362.4, 240.0])


def test_grey_has_no_hue_and_black_no_saturation():
    facts = patch_facts(one_colour((128, 128, 128), (240, 237, 238), (240, 230, 235), (0, 0, 0)))
    assert facts["hue"].isna().tolist() == [True, True, False, True]
    assert facts["saturation"].tolist() == pytest.approx([0, 3 / 240, 10 / 240, 0])


def test_glass_around_the_tissue_does_not_change_its_hue():
    stained, half = np.full((2, 96, 96, 3), (180, 90, 160), np.uint8)
    half[:, :48] = 235
    whole, mixed = patch_facts(measure_table(np.stack([stained, half])))["hue"]
    assert whole == pytest.approx(mixed, abs=1e-4)


def test_brightness_is_the_mean_of_the_luma():
    levels = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    luma = levels @ np.array([0.299, 0.587, 0.114])
    facts = patch_facts(measure_table(levels))
    assert facts["brightness"].to_numpy() == pytest.approx(luma.mean(axis=(1, 2)), rel=1e-6)
    assert facts["contrast"].to_numpy() == pytest.approx(luma.std(axis=(1, 2)), rel=1e-5)


def test_more_haematoxylin_raises_its_share_and_white_has_none():
    # Beer and Lambert: 10 ** -(amount * density of the stain), densities of Ruifrok and Johnston
    stains = np.array([[0.65, 0.704, 0.286], [0.072, 0.990, 0.105]])
    levels = np.round(256 * 10 ** -(np.array([[0.1, 0.3], [0.3, 0.1], [0, 0]]) @ stains) - 1)
    facts = patch_facts(one_colour(*levels))
    assert facts["haematoxylin_share"].tolist()[:2] == pytest.approx([0.25, 0.75], abs=0.01)
    assert np.isnan(facts["haematoxylin_share"][2])


def test_copies_are_counted_among_the_patches_given():
    patches = one_colour((9, 9, 9), (50, 9, 9), (9, 9, 9), (9, 9, 9))
    assert patch_facts(patches)["num_copies"].tolist() == [3, 1, 3, 3]
    assert patch_facts(patches.iloc[:2])["num_copies"].tolist() == [1, 1]


def test_positions_run_from_0_to_1_on_each_slide_and_are_unknown_on_a_slide_of_one_place():
    rows = pd.DataFrame(
        {
            "slide": ["a", "a", "a", "b", None, "c", "c"],
            "coord_x": [100.0, 300, 150, 7, 8, 5, 5],
            "coord_y": [1.0, np.nan, 3, 7, 8, 40, 20],
        }
    )
    facts = patch_facts(rows)
    nan = np.nan
    expected_x, expected_y = [0, 1, 0.25, nan, nan, nan, nan], [0, nan, 1, nan, nan, 1, 0]
    assert facts["position_x"].tolist() == pytest.approx(expected_x, nan_ok=True)
    assert facts["position_y"].tolist() == pytest.approx(expected_y, nan_ok=True)
    assert facts["slide"].tolist() == ["a", "a", "a", "b", None, "c", "c"]


def test_the_place_of_the_tumour_is_what_both_flags_say_and_unknown_where_they_do_not():
    rows = pd.DataFrame(
        {
            "tumor_patch": pd.array([False, True, True, False, None, True], "boolean"),
            "center_tumor_patch": pd.array([False, False, True, True, False, None], "boolean"),
        }
    )
    assert patch_facts(rows)["tumour_at"].tolist() == [
        "none", "edge only", "centre", None, None, None,
    ]  # fmt: skip
    assert "tumour_at" not in patch_facts(rows.drop(columns="tumor_patch"))


def test_what_is_not_known_of_any_patch_is_no_fact():
    patches = one_colour((10, 20, 30), (30, 20, 10)).assign(slide=None, coord_x=np.nan)
    facts = patch_facts(patches)
    assert {"slide", "position_x", "patient", "label_belief", "flags"} & set(facts) == set()
    assert {"brightness", "label", "num_copies"} <= set(facts)


def test_a_search_for_failures_may_use_nothing_that_knows_the_label():
    barred = {name for name, fact in FACTS.items() if not fact.may_suggest}
    assert barred == {"label", "label_belief", "flags", "num_copies", "tumour_at"}
    assert all(fact.description and fact.group for fact in FACTS.values())


def test_the_facts_of_real_patches_are_known_and_in_the_ranges_that_are_said(real_pcam):
    levels, labels = read_patches(real_pcam, "valid", slice(0, 200))
    facts = patch_facts(measure_table(levels, labels, split="valid"))
    assert list(facts) == [
        "brightness", "contrast", "hue", "saturation", "haematoxylin", "eosin",
        "haematoxylin_share", "focus", "blockiness", "tissue_share", "white_share", "num_copies",
        "label",
    ]  # fmt: skip
    assert facts.drop(columns=["hue", "haematoxylin_share"]).notna().all(axis=None)
    assert facts["hue"].isna().mean() < 0.05
    # the colours of haematoxylin and eosin: from blue to red
    assert facts["hue"].between(230, 365).mean() > 0.94
    assert facts["hue"].std() < 30
    for name in ("saturation", "haematoxylin_share", "tissue_share", "white_share"):
        assert facts[name].dropna().between(0, 1).all()
