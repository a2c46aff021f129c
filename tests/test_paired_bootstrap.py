import math

import numpy as np
import pytest

from ml_core.metrics import HIGHER_IS_BETTER, compute_metrics, paired_bootstrap, resamples
from ml_core.metrics.paired import _summarised


def two_models(num_patches, seed=0, skill=(1.5, 0.8)):
    generator = np.random.default_rng(seed)
    y_true = generator.integers(0, 2, num_patches)
    shared = generator.normal(size=num_patches)
    logits = [
        each * (2 * y_true - 1) + shared + 0.6 * generator.normal(size=num_patches)
        for each in skill
    ]
    return y_true, *(1 / (1 + np.exp(-logit)) for logit in logits)


def test_it_equals_scoring_both_models_on_each_resample_by_hand():
    y_true, a, b = two_models(80)
    a, b = np.round(a, 1), np.round(b, 1)
    found = paired_bootstrap(y_true, a, b, (0.4, 0.6), num_resamples=30, seed=9, level=0.9)
    order = np.lexsort((y_true, -b, -a))
    labels, a, b = y_true[order], a[order], b[order]
    slow = []
    for times in np.concatenate(list(resamples(9, 30, 80))).astype(int):
        drawn = np.repeat(np.arange(80), times)
        of_a = compute_metrics(labels[drawn], a[drawn], 0.4)
        of_b = compute_metrics(labels[drawn], b[drawn], 0.6)
        slow.append({name: of_a[name] - of_b[name] for name in HIGHER_IS_BETTER})
    assert list(found) == list(HIGHER_IS_BETTER)
    for name, each in found.items():
        differences = np.array([row[name] for row in slow])
        assert each.value_a == pytest.approx(compute_metrics(labels, a, 0.4)[name], abs=1e-12)
        assert each.value_b == pytest.approx(compute_metrics(labels, b, 0.6)[name], abs=1e-12)
        assert each.difference == each.value_a - each.value_b
        distances = np.abs(differences - each.difference)
        reach = np.quantile(distances, 0.9, method="higher")
        assert (each.low, each.high) == pytest.approx(
            (each.difference - reach, each.difference + reach), abs=1e-12
        )
        as_far_as_zero = (distances > abs(each.difference) - 1e-12).sum()
        assert each.p_value == pytest.approx((as_far_as_zero + 1) / 31)


def test_a_model_against_itself_differs_by_nothing():
    y_true, a, _ = two_models(100)
    for each in paired_bootstrap(y_true, a, a, num_resamples=50).values():
        assert (each.difference, each.low, each.high, each.p_value) == (0, 0, 0, 1)


def test_a_clear_difference_has_the_smallest_p_that_the_resamples_can_show():
    y_true, a, b = two_models(600, skill=(3.0, 0.0))
    found = paired_bootstrap(y_true, a, b, metrics=("accuracy", "brier"), num_resamples=199)
    assert found["accuracy"].p_value == found["brier"].p_value == 1 / 200
    assert found["accuracy"].low > 0 and found["brier"].high < 0


def test_the_interval_leaves_out_0_where_p_is_below_5_percent():
    for seed in range(12):
        y_true, a, b = two_models(150, seed, skill=(1.2, 0.9))
        for each in paired_bootstrap(y_true, a, b, num_resamples=1000).values():
            assert (each.p_value <= 0.05) == (each.low > 0 or each.high < 0)


def test_rounding_puts_no_end_of_an_interval_to_the_other_side_of_0():
    found = _summarised(value_a=125 / 150, value_b=116 / 150, resampled=np.full(9, 0.12), level=0.9)
    assert found.difference > 0.06  # by 5e-17, and 0.12 is less than twice as much
    assert (found.low, found.p_value) == (0, 1)


def test_what_is_hard_for_both_models_cancels():
    y_true, a, b = two_models(400, skill=(1.0, 0.9))
    paired = paired_bootstrap(y_true, a, b, metrics=["brier"])["brier"]
    unrelated = np.random.default_rng(1).permutation(np.flatnonzero(y_true == 1))
    b_elsewhere = b.copy()
    b_elsewhere[y_true == 1] = b[unrelated]
    b_elsewhere[y_true == 0] = b[y_true == 0][::-1]
    apart = paired_bootstrap(y_true, a, b_elsewhere, metrics=["brier"])["brier"]
    assert paired.difference == pytest.approx(apart.difference)
    assert paired.high - paired.low < 0.8 * (apart.high - apart.low)


def test_equally_good_models_are_called_different_in_about_one_of_twenty_tables():
    p_values = [
        paired_bootstrap(
            *two_models(100, seed, skill=(0.8, 0.8)), metrics=["brier"], num_resamples=120
        )["brier"].p_value
        for seed in range(200)
    ]
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.1


def test_the_loss_of_each_model_can_be_given():
    y_true, a, b = two_models(50)
    found = paired_bootstrap(
        y_true, a, b, metrics=["loss"], num_resamples=20, nll_a=np.full(50, 3.0), nll_b=np.ones(50)
    )["loss"]
    assert (found.value_a, found.value_b, found.low, found.high) == (3, 1, 2, 2)


def test_the_order_of_the_patches_and_the_block_do_not_matter_and_the_seed_does(monkeypatch):
    y_true, a, b = two_models(300)
    a, b = np.round(a, 1), np.round(b, 1)
    first = paired_bootstrap(y_true, a, b, num_resamples=40, seed=1)
    monkeypatch.setattr("ml_core.metrics.resampling.BLOCK_CELLS", 300 * 7)
    assert paired_bootstrap(y_true, a, b, num_resamples=40, seed=1) == first
    shuffled = np.random.default_rng(4).permutation(300)
    reordered = paired_bootstrap(
        y_true[shuffled], a[shuffled], b[shuffled], num_resamples=40, seed=1
    )
    other_seed = paired_bootstrap(y_true, a, b, num_resamples=40, seed=2)
    for name, each in first.items():
        assert (each.low, each.high) == pytest.approx(
            (reordered[name].low, reordered[name].high), abs=1e-12
        )
        assert each.low != other_seed[name].low


def test_a_metric_gets_the_same_numbers_whatever_is_asked_beside_it():
    y_true, a, b = two_models(100)
    everything = paired_bootstrap(y_true, a, b, num_resamples=30)
    for name in HIGHER_IS_BETTER:
        assert paired_bootstrap(y_true, a, b, metrics=[name], num_resamples=30) == {
            name: everything[name]
        }


def test_what_is_undefined_for_one_model_is_undefined_for_the_difference():
    y_true, a, b = two_models(60)
    found = paired_bootstrap(y_true, a, b / 10, metrics=["precision", "recall"], num_resamples=20)
    precision = found["precision"]
    assert precision.value_a > 0 and math.isnan(precision.value_b)
    assert all(
        math.isnan(value)
        for value in (precision.difference, precision.low, precision.high, precision.p_value)
    )
    assert found["recall"].value_b == 0.0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"y_prob_b": [0.5]}, "one length"),
        ({"y_prob_a": [0.5, math.nan]}, "NaN or outside"),
        ({"thresholds": (0.5, 2.0)}, r"threshold is 2\.0; allowed"),
        ({"metrics": ["auc"]}, "unknown metric 'auc'; there are: roc_auc, pr_auc"),
        ({"num_resamples": 0}, "at least 1 resample"),
        ({"nll_b": [0.1]}, "one finite loss for each of the 2 patches"),
    ],
)
def test_what_cannot_be_compared_is_refused(changed, words):
    given = {"y_true": [0, 1], "y_prob_a": [0.2, 0.8], "y_prob_b": [0.3, 0.7]}
    with pytest.raises(ValueError, match=words):
        paired_bootstrap(**(given | changed))
