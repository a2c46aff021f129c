import csv
import json
import math

import numpy as np
import pytest
from fabricated_run import fabricate_predictions
from sliced_world import World, favouring_slides, slice_of, table_of

from ml_core.errors import RunError
from ml_core.evaluation.predictions import Predictions
from ml_core.evaluation.slices.scores import score_slices
from ml_core.metrics import HIGHER_IS_BETTER, compute_intervals, compute_metrics

NUM_RESAMPLES = 100  # enough where no interval is looked at


def scored(predictions: Predictions, *slices, **options):
    return score_slices(predictions, 0.5, slices, **{"num_resamples": NUM_RESAMPLES, **options})


def random_slices(num, num_patches, seed=0, share=0.2):
    generator = np.random.default_rng([seed, 5])
    return [slice_of(generator.random(num_patches) < share, f"random {n}") for n in range(num)]


def failing_on(mask, seed=0, **changes) -> Predictions:
    """Predictions that say nothing about the patches of `mask`: their logits are shuffled."""
    table = fabricate_predictions(seed, **changes)
    logit = table.logit.copy()
    logit[mask] = np.random.default_rng(seed).permutation(logit[mask])
    return table_of(table.labels, logit)


def named(names):
    return np.array([f"slide {number}" for number in names], dtype=object)


@pytest.fixture(scope="module")
def table() -> Predictions:
    """1,500 patches of a sound model, which tests only read."""
    return fabricate_predictions()


def test_the_metrics_of_a_slice_are_those_of_its_patches(table):
    mask = np.arange(len(table)) % 4 == 0
    (row,) = scored(table, slice_of(mask)).rows
    values = compute_metrics(table.labels[mask], table.y_prob[mask], nll=table.nll[mask])
    intervals = compute_intervals(
        table.labels[mask], table.y_prob[mask], nll=table.nll[mask], num_resamples=NUM_RESAMPLES
    )
    assert {name: score.value for name, score in row.metrics.items()} == {
        name: values[name] for name in HIGHER_IS_BETTER
    }
    assert {name: score.interval for name, score in row.metrics.items()} == intervals
    assert (row.n, row.positives) == (375, values["positives"])


def test_the_whole_split_stands_beside_its_slices(table):
    overall = scored(table).overall
    assert overall["roc_auc"].value == table.metrics()["roc_auc"]
    assert overall["loss"].value == table.metrics()["loss"]


def test_a_slice_that_fails_is_first_and_worse(table):
    mask = np.arange(len(table)) % 7 == 0
    slices = [*random_slices(10, len(table)), slice_of(mask, "blind")]
    found = scored(failing_on(mask), *slices)
    worst = found.rows[0]
    assert (worst.slice.name, worst.standing) == ("blind", "worse")
    assert worst.difference("error").q < 1e-6
    assert worst.difference("roc_auc").value < -0.3
    assert (found.num_tested, found.num_worse) == (11, 1)


def test_a_slice_that_does_better_is_not_worse(table):
    mask = np.arange(len(table)) % 7 == 0
    found = scored(failing_on(~mask), slice_of(mask, "kept"))
    assert [row.standing for row in found.rows] == ["better"]
    assert found.num_worse == 0


def test_worst_first_is_by_the_excess_that_is_sure():
    """Of 40 patches two fifths are wrong, of 600 a third: the second is surer to be far worse."""
    y_true, place = np.tile([0, 1], 1500), np.arange(3000) // 2
    small, large = place < 20, (place >= 20) & (place < 320)
    wrong = (small & (place % 5 < 2)) | (large & (place % 3 < 1)) | (place % 20 == 19)
    table = table_of(y_true, np.where((y_true == 1) != wrong, 2.0, -2.0))
    first, second = scored(table, slice_of(small, "small"), slice_of(large, "large")).rows
    assert (first.slice.name, second.slice.name) == ("large", "small")
    assert first.difference("error").value < second.difference("error").value
    assert first.difference("error").interval.low > second.difference("error").interval.low


def test_q_values_count_all_slices_of_a_kind_and_no_slice_that_is_too_small(table):
    first = slice_of(np.arange(len(table)) % 7 == 0, "first")
    others = random_slices(19, len(table))
    tiny = [slice_of(np.arange(len(table)) == n, f"tiny {n}") for n in range(20)]
    blind = failing_on(first.mask)
    alone, among = scored(blind, first), scored(blind, first, *others, *tiny)
    p = alone.rows[0].difference("error").p
    assert alone.rows[0].difference("error").q == p
    assert among.rows[0].difference("error").q == pytest.approx(20 * p)
    assert among.num_tested == 20


def test_too_small_is_said_and_not_scored(table):
    found = scored(table, slice_of(np.arange(len(table)) < 29, "few"), slice_of(table.index < 0))
    assert {row.too_small for row in found.rows} == {
        "29 patches; 30 are needed.",
        "No patches; 30 are needed.",
    }
    for row in found.rows:
        assert (row.metrics, row.differences, row.standing) == ({}, {}, "not scored")
    assert "29 patches; 30 are needed" in found.findings[0].message
    assert found.to_dict()["slices"][1]["prevalence"] is None


def test_thirty_patches_are_enough(table):
    (row,) = scored(table, slice_of(np.arange(len(table)) < 30)).rows
    assert row.too_small == "" and row.metrics


def test_a_slice_of_one_class_has_what_one_class_can_have(table):
    (row,) = scored(table, slice_of(table.labels == 0)).rows
    defined = {name for name, score in row.metrics.items() if math.isfinite(score.value)}
    assert defined == {"specificity", "accuracy", "brier", "loss"}
    assert row.note.startswith("No tumours: recall and what takes both classes are not scored.")
    assert math.isnan(row.difference("recall").p)


def test_a_few_tumours_score_no_recall_but_the_normal_patches_do(table):
    tumours = np.flatnonzero(table.labels == 1)[:4]
    mask = (table.labels == 0) & (np.arange(len(table)) < 300)
    mask[tumours] = True
    (row,) = scored(table, slice_of(mask)).rows
    assert math.isnan(row.metrics["recall"].value) and math.isnan(row.metrics["f1"].value)
    right = (table.y_prob < 0.5)[mask & (table.labels == 0)].mean()
    assert row.metrics["specificity"].value == pytest.approx(right)
    assert "4 tumours, of 10 needed" in row.note
    assert row.standing != "not scored"


def test_every_patch_has_no_rest(table):
    (row,) = scored(table, slice_of(np.ones(len(table)))).rows
    assert "no rest to compare with" in row.note
    assert row.standing == "not scored"
    assert row.metrics["roc_auc"].value == table.metrics()["roc_auc"]


def test_a_rest_of_few_tumours_is_said(table):
    mask = np.ones(len(table), dtype=bool)
    mask[np.flatnonzero(table.labels == 1)[:3]] = False
    mask[np.flatnonzero(table.labels == 0)[:200]] = False
    (row,) = scored(table, slice_of(mask)).rows
    assert "The rest has 3 tumours, of 10 needed" in row.note
    assert math.isnan(row.difference("recall").value)
    assert math.isfinite(row.difference("specificity").value)


def test_examples_are_wrong_calls_first_each_with_the_largest_loss_first():
    y_true = np.tile([0, 1], 30)
    logit = np.where(y_true == 1, 1.0, -1.0) * np.linspace(0.5, 4, 60)
    logit[[4, 9]] *= -1
    table = Predictions("valid", np.arange(60) + 1000, y_true, 1 / (1 + np.exp(-logit)), logit)
    (row,) = scored(table, slice_of(np.ones(60)), min_patches=1).rows
    assert row.examples == (1009, 1004, *range(1000, 1004), *range(1005, 1009), 1010, 1011)


def test_with_slides_intervals_and_tests_are_over_slides():
    y_true, logit, slides = World().draw(1)
    mask = favouring_slides(slides, 1)
    table = table_of(y_true, logit)
    alone, clustered = (
        scored(table, slice_of(mask)),
        scored(table, slice_of(mask), slides=named(slides)),
    )
    assert alone.to_dict()["clustered_by"] is None
    assert clustered.to_dict()["clustered_by"] == "slide"
    assert clustered.to_dict()["slices"][0]["clustered_by"] == "slide"
    assert clustered.rows[0].num_slides == len(np.unique(slides[mask]))
    assert clustered.rows[0].difference("error").p > alone.rows[0].difference("error").p
    for name in HIGHER_IS_BETTER:
        widths = [
            each.overall[name].interval.high - each.overall[name].interval.low
            for each in (alone, clustered)
        ]
        assert widths[1] > widths[0], name


def test_a_slice_that_is_one_slide_is_compared_patch_by_patch_and_says_so():
    y_true, logit, slides = World().draw(1)
    counts = np.bincount(slides) - 2 * np.abs(np.bincount(slides, y_true) - np.bincount(slides) / 2)
    mask = slides == counts.argmax()  # has both classes
    table = table_of(y_true, logit)
    (row,) = scored(table, slice_of(mask), slides=named(slides)).rows
    (alone,) = scored(table, slice_of(mask)).rows
    assert row.num_slides == 1
    assert "of 1 slide, of 5 needed" in row.note and "speaks of these slides" in row.note
    assert row.differences == alone.differences and row.metrics == alone.metrics
    assert row.to_dict()["clustered_by"] is None


def test_a_slide_that_fails_is_worse_and_the_finding_counts_its_slides():
    y_true, logit, slides = World(shift=0.2).draw(1)
    mask = slides == np.bincount(slides).argmax()
    found = scored(
        table_of(y_true, np.where(mask, -logit, logit)), slice_of(mask), slides=named(slides)
    )
    assert found.rows[0].standing == "worse"
    assert f"n {mask.sum()}, slides 1)" in found.findings[0].message


def test_tumours_of_few_slides_are_compared_patch_by_patch():
    y_true, logit, slides = World(num_slides=20, per_slide=80).draw(2)
    mask = (np.arange(len(y_true)) % 2 == 0) & ((y_true == 0) | (slides < 4))
    (row,) = scored(table_of(y_true, logit), slice_of(mask), slides=named(slides)).rows
    assert "Its tumours are of 4 slides, of 5 needed" in row.note


def test_a_rest_whose_tumours_are_of_few_slides_is_compared_patch_by_patch():
    y_true, logit, slides = World(num_slides=20, per_slide=80).draw(2)
    mask = (np.arange(len(y_true)) % 2 == 0) | ((y_true == 1) & (slides >= 3))
    (row,) = scored(table_of(y_true, logit), slice_of(mask), slides=named(slides)).rows
    assert "The other tumours are of 3 slides, of 5 needed" in row.note


def test_fewer_than_five_slides_are_no_sample_of_slides():
    y_true, logit, slides = World(num_slides=4, per_slide=150).draw(2)
    table, mask = table_of(y_true, logit), np.arange(len(y_true)) % 3 == 0
    found = scored(table, slice_of(mask), slides=named(slides))
    assert found.to_dict()["clustered_by"] is None
    assert found.overall == scored(table).overall
    assert (found.rows[0].num_slides, found.rows[0].note) == (4, "")
    (finding,) = [each for each in found.findings if each.id == "slices-without-slides"]
    assert "of 4 slides, and 5 are needed" in finding.message


@pytest.mark.parametrize("unknown", [None, math.nan, ""])
def test_a_patch_of_an_unknown_slide_leaves_slides_out_and_is_counted(table, unknown):
    slides = named(np.arange(len(table)) % 20)
    slides[[3, 8]] = unknown
    found = scored(table, slice_of(np.arange(len(table)) % 3 == 0), slides=slides)
    assert found.to_dict()["clustered_by"] is None
    assert found.rows[0].num_slides is None
    assert "the slide of 2 patches is not known" in found.findings[-1].message


def test_no_slides_at_all_is_said(table):
    for slides in (None, np.full(len(table), None, dtype=object)):
        (finding,) = scored(table, slides=slides).findings
        assert "the slides of the patches are not known" in finding.message


def but_for_rounding(content):
    return json.loads(json.dumps(content), parse_float=lambda text: f"{float(text):.11g}")


def test_the_order_of_the_patches_changes_nothing():
    y_true, logit, slides = World(num_slides=12).draw(1)
    mask = favouring_slides(slides, 1)
    order = np.random.default_rng(0).permutation(len(y_true))
    straight = scored(table_of(y_true, logit), slice_of(mask), slides=named(slides)).to_dict()
    table = table_of(y_true[order], logit[order])
    table = Predictions("valid", order, table.y_true, table.y_prob, table.logit)
    turned = scored(table, slice_of(mask[order]), slides=named(slides[order])).to_dict()
    assert but_for_rounding(turned) == but_for_rounding(straight)


def test_lower_recall_is_a_finding_where_specificity_makes_up_for_it(table):
    """Half of all logits are moved down: fewer tumours are found, and fewer false alarms made."""
    mask = np.arange(len(table)) % 2 == 0
    moved = table_of(table.labels, np.where(mask, table.logit - 0.6, table.logit + 0.6))
    found = scored(moved, slice_of(mask, "shifted"))
    assert found.rows[0].standing == "not told apart"
    (finding,) = [each for each in found.findings if each.id == "slices-lower-recall"]
    value = 100 * found.rows[0].difference("recall").value
    assert f"shifted (−{-value:.1f} points" in finding.message
    assert finding.facts["slices"][0]["q"] == found.rows[0].difference("recall").q


def test_a_worse_slice_is_a_warning_with_its_figures(table):
    mask = np.arange(len(table)) % 7 == 0
    found = scored(failing_on(mask), slice_of(mask, "blind"), *random_slices(3, len(table)))
    finding = found.findings[0]
    assert (finding.id, finding.severity, finding.count) == ("slices-worse", "warning", 1)
    error = found.rows[0].difference("error")
    assert f"+{100 * error.value:.1f} points" in finding.message
    assert "in 1 of 4 slices" in finding.message


def test_the_table_is_json_without_nan(table):
    content = scored(table, slice_of(table.labels == 1), slice_of(table.index < 5)).to_dict()
    text = json.dumps(content, allow_nan=False)
    row = json.loads(text)["slices"][0]
    assert row["metrics"]["specificity"] == {"value": None, "low": None, "high": None}
    assert set(row["differences"]["error"]) == {"value", "low", "high", "p", "q"}
    assert set(content) == {
        "level", "num_resamples", "false_discovery_rate", "min_patches", "min_per_class",
        "clustered_by", "overall", "slices", "num_tested", "num_worse", "findings",
    }  # fmt: skip


def test_the_csv_holds_a_row_for_every_slice_worst_first(table, tmp_path):
    mask = np.arange(len(table)) % 7 == 0
    slices = [slice_of(table.index < 5, 'few, "tiny"'), slice_of(mask, "blind")]
    found = scored(failing_on(mask), *slices)
    found.save_csv(tmp_path / "slices.csv")
    with open(tmp_path / "slices.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["blind", 'few, "tiny"']
    assert float(rows[0]["error_difference_q"]) == found.rows[0].difference("error").q
    assert float(rows[0]["recall_low"]) == found.rows[0].metrics["recall"].interval.low
    assert float(rows[0]["recall"]) == found.rows[0].metrics["recall"].value
    assert rows[1]["recall"] == "" and rows[1]["too_small"] == "5 patches; 30 are needed."


def test_no_slices_are_a_table_with_its_columns(table, tmp_path):
    found = scored(table)
    found.save_csv(tmp_path / "slices.csv")
    assert (tmp_path / "slices.csv").read_text().startswith("name,group,kind,where,n,")
    assert found.to_dict()["slices"] == []


def test_a_table_that_cannot_be_written_is_said(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*slices\.csv"):
        scored(table).save_csv(tmp_path / "file" / "slices.csv")


def test_misuse_is_refused_in_words(table):
    with pytest.raises(
        ValueError, match=r"mask of slice 'dark' is bool of shape \(5,\).*\(1500,\)"
    ):
        scored(table, slice_of(np.ones(5)))
    with pytest.raises(ValueError, match="false_discovery_rate is 1"):
        scored(table, false_discovery_rate=1)
    with pytest.raises(ValueError, match="threshold is 2"):
        score_slices(table, 2, [])
    with pytest.raises(ValueError, match="3 slides are named for 1500 patches"):
        scored(table, slides=named(range(3)))
    unlabelled = Predictions("valid", table.index, None, table.y_prob, table.logit)
    with pytest.raises(RunError, match="have no labels"):
        scored(unlabelled)


def test_losses_are_those_of_logits_also_over_slides():
    """A tumour with a logit of -60 costs 60, where its probability, rounded to 0, would say 708."""
    y_true, logit, slides = World().draw(0)
    logit[np.flatnonzero(y_true == 1)[:3]] = -60.0
    table = table_of(y_true, np.where(logit > 0, logit + 60, logit))
    overall = scored(table, slides=named(slides)).overall["loss"]
    assert overall.interval.low < overall.value < overall.interval.high < 60


def reported(table, slices, **options):
    """Return the rows of the slices that are worse or better."""
    rows = scored(table, *slices, num_resamples=1, **options).rows
    return [row for row in rows if row.standing in ("worse", "better")]


def test_of_20_random_slices_of_a_sound_model_at_most_one_is_reported():
    """Though among so many tests some p-value is below a twentieth."""
    smallest = []
    for seed in range(7, 10):
        table = fabricate_predictions(seed)
        found = scored(table, *random_slices(20, len(table), seed), num_resamples=1)
        assert sum(row.standing in ("worse", "better") for row in found.rows) <= 1
        smallest.append(min(row.difference("error").p for row in found.rows))
        assert found.num_worse == 0
    assert min(smallest) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("by_slide", [False, True])
def test_any_of_20_slices_of_a_sound_model_is_reported_in_at_most_5_of_100_tables(by_slide):
    """Where nothing differs this share is the false discovery rate; 3 errors of 80 are 7.3 %."""
    world = World(40, 60, 0.5 if by_slide else 0.0)
    num_reported = 0
    for seed in range(80):
        y_true, logit, slides = world.draw(seed)
        masks = [favouring_slides(slides, 100 * seed + number) for number in range(20)]
        slices = [slice_of(mask, f"slice {number}") for number, mask in enumerate(masks)]
        known = named(slides) if by_slide else None
        num_reported += bool(reported(table_of(y_true, logit), slices, slides=known))
    assert num_reported / 80 <= 0.05 + 0.073


@pytest.mark.slow
def test_among_slices_that_fail_few_of_the_reported_are_false():
    """6 of 30 slices fail; each is a block of 100 patches of its own, so all others are sound."""
    shares, num_found = [], 0
    for seed in range(25):
        blocks = np.arange(3000) // 100
        generator = np.random.default_rng(seed)
        y_true = generator.integers(0, 2, 3000)
        separation = np.where(blocks < 6, 0.4, 1.2)
        logit = 2 * (separation * (2 * y_true - 1) + generator.normal(size=3000))
        slices = [slice_of(blocks == number, str(number)) for number in range(30)]
        # the rest of a sound slice holds the failing ones, so that it is better by a little
        rows = scored(table_of(y_true, logit), *slices, num_resamples=1).rows
        worse = [int(row.slice.name) for row in rows if row.standing == "worse"]
        shares.append(np.mean([number >= 6 for number in worse]) if worse else 0.0)
        num_found += sum(number < 6 for number in worse)
    assert np.mean(shares) <= 0.05
    assert num_found / (25 * 6) > 0.9
