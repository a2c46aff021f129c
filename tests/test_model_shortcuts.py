"""How far a model follows properties that should not matter, from models that do and do not."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from real_patches import read_patches
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from ml_core.audit.checks.shortcuts import CUES, check_shortcuts
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.pixel_stats import measure_pixels
from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions, sigmoid
from ml_core.evaluation.shortcut_plot import plot_shortcuts
from ml_core.evaluation.shortcut_score import property_score
from ml_core.evaluation.shortcuts import FACTS_OF_PROPERTY, measure_shortcuts
from ml_core.evaluation.slices.patch_facts import FACTS, patch_facts

NUM = 600
RNG = np.random.default_rng(7)
LABELS = np.arange(NUM) % 2
FACTS_HERE = pd.DataFrame(
    {
        "focus": RNG.normal(9000 + 1500 * LABELS, 2000),
        "brightness": RNG.normal(150 - 25 * LABELS, 20),
        "hue": RNG.normal(320 - 10 * LABELS, 12),
        "saturation": RNG.normal(0.3, 0.05, NUM),
    }
)


def line(name, auc, reach=0.02, split="valid"):
    return {
        "split": split, "property": name, "auc": auc, "low": auc - reach, "high": auc + reach,
        "num_patches": NUM, "warning_from": 0.9,
    }  # fmt: skip


TABLE = [line("mean-colour", 0.84), line("focus", 0.70), line("row-number", 0.38)]


def predictions(logit, labels=LABELS):
    logit = np.asarray(logit, float)
    index = np.arange(len(logit))
    return Predictions("valid", index, labels, sigmoid(logit), logit)


def knows_the_truth(seed=0, spread=2.0):
    return predictions(3 * (2 * LABELS - 1) + np.random.default_rng(seed).normal(0, spread, NUM))


def measured(table=None, facts=FACTS_HERE, of=None):
    content = measure_shortcuts(of or knows_the_truth(), facts, TABLE if table is None else table)
    return content, {each["name"]: each for each in content["properties"]}


def holds(score, value):
    return score["low"] <= value <= score["high"]


def test_a_model_of_the_truth_follows_nothing_within_a_class():
    content, properties = measured()
    for name in ("mean-colour", "focus"):
        for score in properties[name]["within_class"].values():
            assert holds(score, 0), name
    assert content["findings"] == []
    alike = properties["mean-colour"]["auc_at_like_values"]
    assert holds(alike, content["model_auc"]["value"])


def test_a_model_that_is_the_property_follows_it_and_knows_nothing_else():
    blind = predictions((FACTS_HERE["focus"] - 9750) / 800)
    content, properties = measured(of=blind)
    for score in properties["focus"]["within_class"].values():
        assert score["value"] == pytest.approx(1)
        assert 0.99 < score["low"] < 0.999 and score["high"] == score["value"]
    assert properties["focus"]["auc_at_like_values"]["value"] < 0.6
    assert content["model_auc"]["value"] == pytest.approx(0.7, abs=0.04)
    assert {each["id"] for each in content["findings"]} >= {
        "follows-focus",
        "no-better-than-focus",
    }


@pytest.mark.parametrize("sign", [1, -1])
def test_following_in_both_classes_and_one_direction_is_a_warning(sign):
    def followed(tumour_sign):
        follows = (FACTS_HERE["focus"] - FACTS_HERE["focus"].mean()) / 300
        signs = np.where(LABELS == 1, tumour_sign, sign)
        noise = np.random.default_rng(1).normal(0, 1, NUM)
        return measured(of=predictions(8 * LABELS + signs * follows + noise))[0]["findings"]

    finding = next(each for each in followed(sign) if each["id"] == "follows-focus")
    assert "among normal" in finding["message"] and finding["severity"] == "warning"
    assert not any(each["id"] == "follows-focus" for each in followed(-sign))
    assert not any(each["id"] == "follows-focus" for each in followed(0))


def test_the_correlation_is_spearmans_of_the_logit():
    table = knows_the_truth()
    _, properties = measured(of=table)
    for called, label in (("normal", 0), ("tumour", 1)):
        rows = label == LABELS
        rho = spearmanr(table.logit[rows], FACTS_HERE["focus"][rows]).statistic
        assert properties["focus"]["within_class"][called]["value"] == pytest.approx(rho)


def test_the_interval_of_a_correlation_covers():
    # Spearman's rho of normal values is 6 / pi asin(r / 2) (Pearson 1907)
    truth, r, hits = 6 / np.pi * np.arcsin(0.6 / 2), 0.6, 0
    labels = np.zeros(80, int)
    labels[:2] = 1
    for seed in range(300):
        focus, other = np.random.default_rng(seed).normal(size=(2, 80))
        table = predictions(r * focus + np.sqrt(1 - r**2) * other, labels)
        within = measure_shortcuts(table, pd.DataFrame({"focus": focus}), [line("focus", 0.6)])
        hits += holds(within["properties"][0]["within_class"]["normal"], truth)
    assert 0.92 <= hits / 300 <= 0.98


def test_like_values_are_the_pairs_within_a_tenth():
    table = knows_the_truth(spread=6)
    _, properties = measured(of=table)
    tenth = pd.qcut(FACTS_HERE["focus"], 10, labels=False).to_numpy()
    above, pairs = 0.0, 0
    for number in range(10):
        rows = tenth == number
        ones, zeros = (table.y_prob[rows & (label == LABELS)] for label in (1, 0))
        above += sum((a > b) + (a == b) / 2 for a, b in itertools.product(ones, zeros))
        pairs += len(ones) * len(zeros)
    alike = properties["focus"]["auc_at_like_values"]
    assert alike["value"] == pytest.approx(above / pairs)
    assert alike["low"] < alike["value"] < alike["high"] < alike["low"] + 0.2


def test_the_difference_is_from_the_better_direction_of_a_property():
    content, properties = measured()
    model = content["model_auc"]["value"]
    assert properties["focus"]["model_minus_it"]["value"] == pytest.approx(model - 0.70)
    assert properties["row-number"]["model_minus_it"]["value"] == pytest.approx(model - 0.62)
    assert properties["row-number"]["auc"] == {"value": 0.38, "low": 0.36, "high": 0.4}
    for each in properties.values():
        assert holds(each["model_minus_it"], each["model_minus_it"]["value"])


def test_a_model_not_clearly_above_a_property_is_warned_of_unless_it_cannot_see_it():
    weak = predictions(LABELS + np.random.default_rng(2).normal(0, 1, NUM))
    table = [line("mean-colour", 0.84), line("row-number", 0.84), line("focus", 0.55)]
    content, _ = measured(table, of=weak)
    assert [each["id"] for each in content["findings"]] == ["no-better-than-mean-colour"]


def test_what_no_model_sees_and_facts_that_are_missing_stay_undefined():
    table = [*TABLE, line("neighbours", 0.9), line("blockiness", 0.6)]
    content, properties = measured(table)
    for name in ("row-number", "neighbours", "blockiness"):
        assert properties[name]["facts"] == []
        assert properties[name]["within_class"]["tumour"]["value"] is None
        assert properties[name]["auc_at_like_values"]["value"] is None
    json.dumps(content, allow_nan=False)


def test_only_the_lines_of_the_split_are_taken_and_none_is_said():
    content, _ = measured([line("focus", 0.7, split="train")])
    assert content["properties"] == []
    assert [each["id"] for each in content["findings"]] == ["shortcuts-not-measured"]


def test_one_class_constant_facts_and_unknown_ones_give_no_number():
    of_one_class = predictions(knows_the_truth().logit, np.ones(NUM, int))
    content, properties = measured(of=of_one_class)
    assert content["model_auc"]["value"] is None
    assert properties["focus"]["within_class"]["normal"]["value"] is None
    assert properties["focus"]["within_class"]["tumour"]["value"] is not None
    assert properties["mean-colour"]["within_class"]["tumour"]["value"] is None
    json.dumps(content, allow_nan=False)
    constant = FACTS_HERE.assign(focus=1.0)
    assert measured(facts=constant)[1]["focus"]["within_class"]["normal"]["value"] is None
    unknown = FACTS_HERE.assign(focus=np.nan)
    assert measured(facts=unknown)[1]["focus"]["auc_at_like_values"]["value"] is None
    partly = FACTS_HERE.copy()
    partly.loc[::7, ["focus", "hue"]] = np.nan
    known = partly["focus"].notna() & (LABELS == 0)
    rho = spearmanr(knows_the_truth().logit[known], partly["focus"][known]).statistic
    properties = measured(facts=partly)[1]
    assert properties["focus"]["within_class"]["normal"]["value"] == pytest.approx(rho)
    assert properties["mean-colour"]["within_class"]["normal"]["value"] is not None


def test_predictions_without_labels_are_refused():
    with pytest.raises(RunError, match="have no labels"):
        measured(of=predictions(knows_the_truth().logit, None))


def test_a_score_of_several_facts_is_made_without_the_patch_itself():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(300, 12))
    aucs = [roc_auc_score(y, property_score(noise, y)) for y in rng.integers(0, 2, (20, 300))]
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.03)  # 0.6 and more if it had been learned


def test_a_score_of_several_facts_sees_what_lies_at_both_ends():
    rng = np.random.default_rng(4)
    facts = rng.normal(size=(400, 2))
    labels = (np.abs(facts[:, 0]) > 0.7).astype(int)
    assert roc_auc_score(labels, property_score(facts, labels)) > 0.95


def test_copies_of_a_patch_do_not_tell_its_label():
    rng = np.random.default_rng(1)
    facts = np.repeat(rng.normal(size=(60, 12)), 5, axis=0)
    labels = np.repeat(rng.integers(0, 2, 60), 5)
    scores = property_score(facts, labels)
    assert all(len(np.unique(each)) == 1 for each in scores.round(9).reshape(60, 5))
    order = rng.permutation(300)
    assert property_score(facts[order], labels[order]) == pytest.approx(scores[order], abs=1e-9)
    assert roc_auc_score(labels, scores) < 0.75


def test_every_property_of_the_audit_that_shows_has_facts_and_they_exist():
    assert FACTS_OF_PROPERTY.keys() == {cue.name for cue in CUES}
    assert {fact for facts in FACTS_OF_PROPERTY.values() for fact in facts} <= FACTS.keys()


def test_on_real_patches_the_facts_predict_the_label_as_well_as_the_audits_columns(real_pcam):
    levels, labels = read_patches(real_pcam, "valid", np.arange(1500))
    patches = pd.DataFrame(dict(measure_pixels(Block(levels))))
    patches = patches.assign(split="valid", index=np.arange(1500), label=labels)
    audited = next(f for f in check_shortcuts(patches) if f.id == "shortcuts-measured")
    table = {each["property"]: each["auc"] for each in audited.facts["table"]}
    facts = patch_facts(patches)
    for name in ("mean-colour", "colour-statistics"):
        seen = facts[list(FACTS_OF_PROPERTY[name])].to_numpy()
        auc = roc_auc_score(labels, property_score(seen, labels))
        assert auc == pytest.approx(table[name], abs=0.02), name


def test_the_figure_has_a_row_for_each_property_and_leaves_out_what_is_undefined():
    content, properties = measured([*TABLE, line("neighbours", 0.9)])
    figure = plot_shortcuts(json.loads(json.dumps(content, allow_nan=False)))
    areas = figure.axes[0]
    rows = [label.get_text() for label in areas.get_yticklabels()]
    assert rows == ["mean colour", "focus", "row number", "neighbours"]
    drawn = {line.get_label(): line.get_xdata() for ax in figure.axes for line in ax.lines}
    assert list(drawn["property"]) == [each["auc"]["value"] for each in content["properties"]]
    assert len(drawn["at like values"]) == len(drawn["normal"]) == len(drawn["tumour"]) == 2
    assert drawn["tumour"][1] == properties["focus"]["within_class"]["tumour"]["value"]
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_a_figure_of_no_property_and_an_unscored_model_is_still_drawn():
    nothing = {"value": None, "low": None, "high": None}
    assert len(plot_shortcuts({"model_auc": nothing, "properties": []}).axes) == 2
