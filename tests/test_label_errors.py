"""Flipped labels among real patches are ranked first, counted, and not invented."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from ml_core.audit.checks.label_errors import (
    NoiseEstimate,
    check_label_errors,
    estimate_noise,
    rank_label_errors,
    rank_patches,
)
from ml_core.audit.measures.block import Block
from ml_core.audit.measures.features import fit_features
from ml_core.audit.statistics.kernel_ridge import NUM_FOLDS, out_of_fold_scores
from ml_core.audit.statistics.proportions import proportion
from ml_core.data.layout import SPLITS, load_labels, split_paths
from ml_core.data.patch_file import PatchFile, evenly_spaced
from ml_core.metrics import compute_metrics


def judge(patches, features):
    """Return the findings on the labels of a table."""
    return check_label_errors(patches, rank_patches(patches, features))


@pytest.fixture(scope="module")
def real(real_pcam):
    """The table of 4,000 + 500 + 500 real patches, and their features."""
    tables, levels = [], []
    for split, num in zip(SPLITS, (4000, 500, 500), strict=True):
        paths = split_paths(real_pcam, split)
        file = PatchFile(paths.x)
        rows = evenly_spaced(len(file), num)
        levels.append(file.read(rows))
        tables.append(
            pd.DataFrame(
                {
                    "split": split,
                    "index": rows,
                    "label": load_labels(paths.y)[rows].astype(np.int8),
                    "content_hash": [hashlib.sha256(each).hexdigest() for each in levels[-1]],
                }
            )
        )
    bank = fit_features(levels[0][::2], seed=0)
    blocks = (Block(each[i : i + 32]) for each in levels for i in range(0, len(each), 32))
    features = np.concatenate([bank.measure(block)["features"] for block in blocks])
    patches = pd.concat(tables, ignore_index=True)
    return patches.astype({"split": "category"}), features


def flip(patches, chosen):
    return patches.assign(label=np.where(chosen, 1 - patches["label"], patches["label"]))


def auc(flipped, suspicion):
    return compute_metrics(flipped.astype(int), suspicion)["roc_auc"]


def toy(num=3000, seed=0):
    """Two overlapping clouds: features (num, 4) and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num)
    return (rng.normal(size=(num, 4)) + 3 * labels[:, None]).astype(np.float32), labels


@pytest.mark.parametrize("of_class", [None, 0, 1])
def test_flipped_labels_are_ranked_before_right_ones(real, of_class):
    patches, features = real
    flipped = np.random.default_rng(1).random(len(patches)) < 0.05
    if of_class is not None:
        flipped &= patches["label"] == of_class
    ranked = rank_label_errors(features, flip(patches, flipped)["label"].to_numpy())
    assert auc(flipped, 1 - ranked.prob_given) >= 0.85
    assert np.array_equal(np.sort(ranked.order), np.arange(len(patches)))
    assert (np.diff(ranked.prob_given[ranked.order]) >= 0).all()


def test_clean_real_labels_are_no_warning(real):
    findings = judge(*real)
    assert [(f.id, f.severity, f.split) for f in findings] == [
        ("label-errors", "info", split) for split in SPLITS
    ]
    assert not any(finding.exclude for finding in findings)
    assert findings[0].facts["model_auc"] > 0.88
    assert findings[0].facts["noise_rate"] < 0.04


def test_a_tenth_of_flips_is_a_warning_with_the_rate_and_the_suspects(real):
    patches, features = real
    flipped = np.random.default_rng(2).random(len(patches)) < 0.1
    train = judge(flip(patches, flipped), features)[0]
    assert train.severity == "warning" and not train.exclude
    low, high = train.facts["noise_rate_interval"]
    assert low < train.facts["noise_rate"] < high
    assert 0.08 < train.facts["noise_rate"] < 0.15
    truly = patches["index"][flipped & (patches["split"] == "train")]
    assert np.isin(train.indices, truly).mean() > 0.7
    assert np.isin([each[0][1] for each in train.examples], truly).mean() > 0.7
    assert len(train.examples) == 12 and json.loads(json.dumps(train.facts)) == train.facts


def test_flips_of_one_class_are_laid_at_its_door(real):
    patches, features = real
    flipped = (np.random.default_rng(3).random(len(patches)) < 0.2) & (patches["label"] == 1)
    facts = judge(flip(patches, flipped), features)[0].facts
    assert facts["surest_tumour_labelled_normal"]["share"] > 0.12
    assert facts["surest_normal_labelled_tumour"]["share"] < 0.05


def test_imbalance_alone_is_no_label_noise(real):
    patches, features = real
    kept = (patches["label"] == 0) | (np.arange(len(patches)) % 5 == 0)
    kept |= patches["split"] != "train"
    findings = judge(patches[kept].reset_index(drop=True), features[kept])
    assert {finding.severity for finding in findings} == {"info"}


def test_a_rare_class_may_be_contradicted_in_proportion_to_the_other():
    """Measured on clean real patches at 5:1, where 26 of the 400 surest tumours are normal."""
    for num_normal, beyond in ((2000, False), (400, True)):
        shares = (proportion(0, num_normal), proportion(26, 400))
        noise = NoiseEstimate(0.02, 0.01, 0.03, shares, np.zeros(0, np.int64), 0.05)
        assert noise.is_beyond_hard_patches == beyond


def test_a_label_has_no_part_in_its_own_score():
    features, labels = toy()
    folds = np.arange(len(labels)) % NUM_FOLDS
    other = labels.copy()
    other[folds == 2] = 1 - other[folds == 2]
    scores, again = (out_of_fold_scores(features, y, folds, seed=0) for y in (labels, other))
    assert np.array_equal(scores[folds == 2], again[folds == 2])
    assert not np.allclose(scores[folds == 1], again[folds == 1])


def test_exact_repeats_do_not_vouch_for_each_other():
    features, labels = toy(600)
    wrong = np.flatnonzero(labels == 1)[:2]
    # 30 copies of each of two wrong labels would persuade any local model
    features = np.concatenate([features, features[wrong].repeat(30, axis=0)])
    labels = np.concatenate([labels, np.zeros(60, int)])
    labels[wrong] = 0
    groups = np.concatenate([np.arange(600), wrong.repeat(30)])
    ranked = rank_label_errors(features, labels, groups)
    assert (ranked.prob_given[wrong] < 0.3).all()
    assert rank_label_errors(features, labels).prob_given[wrong].mean() > 0.4


def test_the_scores_do_not_depend_on_the_scale_of_a_feature():
    features, labels = toy()
    scaled = features * np.float32([1, 1000, 0.01, 1]) + np.float32([0, 0, 0, 500])
    plain, again = (rank_label_errors(each, labels).prob_given for each in (features, scaled))
    assert np.allclose(plain, again, atol=0.02)


def test_the_estimate_is_the_share_of_other_labels_among_the_surest_fifth():
    prob = np.linspace(0.01, 0.99, 100).astype(np.float32)
    labels = np.arange(100) // 70  # 70 normal, 30 tumour
    labels[[3, 45, 98]] = 1 - labels[[3, 45, 98]]
    noise = estimate_noise(prob, labels)
    assert [(each.count, each.num) for each in noise.per_class] == [(1, 13), (1, 6)]
    assert noise.contradicted.tolist() == [98, 3]
    assert noise.rate == pytest.approx(0.69 / 13 + 0.31 / 6)
    assert noise.low < noise.rate < noise.high


def test_unknown_labels_are_left_out_and_counted():
    features, labels = toy()
    labels[::3] = -1
    patches = pd.DataFrame({"split": "train", "index": np.arange(3000), "label": labels})
    patches["content_hash"] = patches["index"].astype(str)
    ranked = rank_label_errors(features, labels)
    assert (
        np.isnan(ranked.prob_given[::3]).all()
        and not np.isin(ranked.order, range(0, 3000, 3)).any()
    )
    (finding,) = judge(patches, features)
    assert finding.facts["num_judged"] == 2000 and finding.facts["num_unknown"] == 1000


@pytest.mark.parametrize("labels", [[], [1], [-1] * 30, [1] * 30, [0, 1] * 12, [0, 1] * 100])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_tiny_one_class_and_uniform_tables_are_no_warning(labels):
    patches = pd.DataFrame({"split": "train", "index": range(len(labels)), "label": labels})
    patches["content_hash"] = "the same"
    findings = judge(patches, np.ones((len(labels), 96), np.float32))
    assert all(finding.severity == "info" for finding in findings)
