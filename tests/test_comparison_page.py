import re
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from fabricated_failures import fabricate_facts, fabricate_slices
from fabricated_run import fabricate_patches, fabricate_predictions, fabricate_run
from rendered_block import render_block

from ml_core.errors import DataError
from ml_core.evaluation.predictions import evaluate_predictions
from ml_core.evaluation.report import render_report
from ml_core.evaluation.report.changed_sides import (
    PER_GALLERY,
    Operated,
    change_sides,
    mcnemar_p,
)
from ml_core.evaluation.report.changed_slices import change_slices
from ml_core.evaluation.report.comparison import compare_runs
from ml_core.evaluation.report.run_facts import read_run_facts
from ml_core.runs import RunDir, read_json, write_json
from ml_core.selection.paired import Contender, paired_differences

NAMES = ("A run", "B run")


def fabricate_two(folder, scale=0.4, slices=True):
    """Write two runs on the same patches, the second with other answers; return them."""
    first = fabricate_predictions()
    noise = np.random.default_rng(1).normal(size=len(first))
    logit = first.logit + scale * noise + 0.3 * (2 * first.labels - 1)
    second = replace(first, logit=logit, y_prob=1 / (1 + np.exp(-logit)), weights_sha256="b" * 64)
    runs = []
    for name, predictions in (("a", first), ("b", second)):
        run = fabricate_run(folder / name, logs=False)
        predictions.save(run.predictions_path("valid"))
        write_json(run.metrics_path, evaluate_predictions(predictions, num_resamples=20))
        if slices:
            content = fabricate_slices(predictions, facts=fabricate_facts(first))
            write_json(run.slices_path("valid"), content)
        runs.append(run)
    return runs


def differences_of(a: RunDir, b: RunDir):
    first, second = (read_run_facts(run).labelled for run in (a, b))
    return paired_differences(
        first.labels,
        Contender("b", second.y_prob, 0.5, second.nll),
        Contender("a", first.y_prob, 0.5, first.nll),
        num_resamples=50,
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return fabricate_two(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def comparison(two):
    return compare(two, fabricate_patches)


@pytest.fixture(scope="module")
def html(comparison):
    return block_of(comparison)


def compare(two, read_patches=None):
    facts = [read_run_facts(run) for run in two]
    return compare_runs(*facts, differences_of(*two), names=NAMES, read_patches=read_patches)


def block_of(comparison):
    return render_block("comparison.html.j2", "comparison_block", comparison)


def part_of(html, opening, closing):
    start = html.index(opening)
    return html[start : html.index(closing, start)]


def numbers_in(html):
    return [float(value) for value in re.findall(r'<data value="([^"]+)"', html)]


# ---- metrics


def test_every_metric_shows_both_runs_and_what_b_changes(two, html):
    scores = [read_json(run.metrics_path)["metrics"] for run in two]
    for name, each in differences_of(*two).items():
        row = part_of(html, f'data-difference="{name}"', "</tr>")
        a, b, difference, p = numbers_in(row)
        assert a == pytest.approx(scores[0][name]["value"])
        assert b == pytest.approx(scores[1][name]["value"])
        assert difference == pytest.approx(b - a) and p == each["p_value"]


@pytest.mark.parametrize(
    ("name", "low", "high", "standing"),
    [("recall", 0.01, 0.02, "better"), ("recall", -0.02, -0.01, "worse"),
     ("recall", -0.01, 0.02, ""), ("recall", 0.0, 0.02, ""), ("recall", None, None, ""),
     ("loss", 0.01, 0.02, "worse"), ("brier", -0.02, -0.01, "better")],
)  # fmt: skip
def test_b_is_better_only_where_the_whole_interval_says_so(two, name, low, high, standing):
    written = {"value": 0.9, "other": 0.8, "difference": 0.1, "low": low, "high": high,
               "p_value": 0.5, "test": "DeLong"}  # fmt: skip
    facts = [read_run_facts(run) for run in two]
    (row,) = compare_runs(*facts, {name: written}, names=NAMES).metrics
    assert (row.a, row.b, row.standing) == (0.8, 0.9, standing)


def test_without_differences_it_is_said(two):
    facts = [read_run_facts(run) for run in two]
    html = block_of(compare_runs(*facts, {}, names=NAMES))
    assert "No paired differences were computed." in html


# ---- patches that changed sides


def test_counts_are_those_of_the_two_tables(two, html):
    first, second = (read_run_facts(run).labelled for run in two)
    right = [(table.y_prob >= 0.5) == (table.labels == 1) for table in (first, second)]
    for name, among in (("all", first.labels >= 0), ("tumour", first.labels == 1),
                        ("normal", first.labels == 0)):  # fmt: skip
        a, b = right[0][among], right[1][among]
        counts = [(a & b).sum(), (~a & b).sum(), (a & ~b).sum(), (~a & ~b).sum()]
        row = part_of(html, f'data-tally="{name}"', "</tr>")
        assert numbers_in(row)[:4] == counts
        assert sum(counts) == among.sum()


def test_galleries_hold_the_patches_that_moved_furthest(two, comparison):
    first, second = (read_run_facts(run).labelled for run in two)
    right = [(table.y_prob >= 0.5) == (table.labels == 1) for table in (first, second)]
    moved = np.abs(second.logit - first.logit)
    for patches, mask in (
        (comparison.sides.mended, ~right[0] & right[1]),
        (comparison.sides.broken, right[0] & ~right[1]),
    ):
        rows = np.flatnonzero(mask)
        furthest = rows[np.argsort(-moved[rows])][:PER_GALLERY]
        assert [patch.index for patch in patches] == first.index[furthest].tolist()
        assert [patch.prob_a for patch in patches] == first.y_prob[furthest].tolist()
        assert [patch.prob_b for patch in patches] == second.y_prob[furthest].tolist()


def test_each_changed_patch_is_shown_with_both_probabilities(comparison, html):
    for kind in ("mended", "broken"):
        patches = getattr(comparison.sides, kind)
        gallery = part_of(html, f'data-changed="{kind}"', "</section>")
        shown = [int(index) for index in re.findall(r"compared-valid-(\d+)", gallery)]
        assert shown == [patch.index for patch in patches] and len(patches) > 3
        assert numbers_in(gallery) == [
            prob for patch in patches for prob in (patch.prob_a, patch.prob_b)
        ]


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 9), (9, 3), (40, 40), (0, 12)])
def test_p_is_the_exact_binomial_one(only_a, only_b):
    changed, least = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(changed, k) for k in range(least + 1)) / 2**changed
    assert mcnemar_p(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))


def test_each_run_is_called_at_its_own_threshold():
    table = fabricate_predictions()
    sides, why = change_sides(Operated(table, 0.5), Operated(table, 0.9), NAMES)
    between = (table.y_prob >= 0.5) & (table.y_prob < 0.9)
    assert why == "" and sides.thresholds == (0.5, 0.9)
    assert sides.all.only_b == (between & (table.labels == 0)).sum()
    assert sides.all.only_a == (between & (table.labels == 1)).sum()


def test_patches_are_matched_by_index_and_those_of_one_table_are_counted():
    table = fabricate_predictions()
    shuffled = np.random.default_rng(0).permutation(len(table))[:1400]
    columns = {name: getattr(table, name)[shuffled] for name in
               ("index", "y_true", "y_prob", "logit")}  # fmt: skip
    sides, _ = change_sides(Operated(table, 0.5), Operated(replace(table, **columns), 0.5), NAMES)
    assert (sides.n, sides.num_not_shared) == (1400, 100)
    assert sides.all.only_a == sides.all.only_b == 0 and sides.all.p == 1.0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"split": "test"}, "one was scored on valid, the other on test"),
        ({"index": np.arange(5000, 6500)}, "none is in both tables"),
        ({"y_true": np.zeros(1500, int)}, "of 1,500 patches have another label"),
    ],
)
def test_what_cannot_be_compared_says_why(changes, why):
    table = fabricate_predictions()
    other = replace(table, **changes)
    sides, said = change_sides(Operated(table, 0.5), Operated(other, 0.5), NAMES)
    assert sides is None and why in said


def test_a_run_without_scores_is_named(two, tmp_path):
    bare = fabricate_run(tmp_path, logs=False)
    bare.metrics_path.unlink()
    facts = [read_run_facts(two[0]), read_run_facts(bare)]
    comparison = compare_runs(*facts, {}, names=NAMES)
    assert comparison.why_no_sides == "there are no scored predictions with labels of B run."
    assert "slices.json of B run is absent" in comparison.why_no_slices
    html = block_of(comparison)
    assert comparison.why_no_sides in html and comparison.why_no_slices in html


def test_patches_that_cannot_be_read_are_said_and_the_rest_is_shown(two):
    def read(split, index):
        raise DataError("the file is gone.")

    html = block_of(compare(two, read))
    assert "the file is gone." in html and "background-image" not in html
    assert "data-tally" in html


# ---- slices


def slices(**standings):
    """slices.json of one run, a slice for each name, with its standing and error rate."""
    return {
        "slices": {
            "format": 1,
            "slices": [
                {
                    "name": name, "group": "g", "kind": "standard", "where": f"{name} > 1",
                    "said": "", "n": 100, "positives": 50, "prevalence": 0.5, "num_slides": None,
                    "too_small": "", "note": "",
                    "metrics": {"accuracy": {"value": 1 - error, "low": 0.97 - error,
                                             "high": 1.03 - error}},
                    "differences": {}, "standing": standing, "examples": [],
                }
                for name, (standing, error) in standings.items()
            ],
        }
    }  # fmt: skip


def test_slices_are_gained_lost_or_worse_with_both():
    a = slices(dark=("worse", 0.3), pale=("not told apart", 0.1), red=("worse", 0.4),
               calm=("not told apart", 0.1))  # fmt: skip
    b = slices(dark=("not told apart", 0.28), pale=("worse", 0.12), red=("worse", 0.38),
               calm=("better", 0.11))  # fmt: skip
    changed, why = change_slices(a, b, NAMES)
    assert why == ""
    assert [(each.name, each.change) for each in changed.changes] == [
        ("dark", "gained"), ("pale", "lost"), ("red", "both"),
    ]  # fmt: skip
    assert [changed.count(kind) for kind in ("gained", "lost", "both")] == [1, 1, 1]


def test_a_slice_whose_intervals_lie_apart_is_listed_whatever_its_standing():
    a, b = (slices(dark=("not told apart", error)) for error in (0.3, 0.2))
    changed, _ = change_slices(a, b, NAMES)
    (each,) = changed.changes
    assert each.change == "" and each.difference == pytest.approx(-0.1)
    near, _ = change_slices(a, slices(dark=("not told apart", 0.25)), NAMES)
    assert near.changes == []


def test_slices_of_one_run_only_are_named_and_found_ones_left_out():
    a, b = slices(dark=("worse", 0.3), mine=("worse", 0.3)), slices(dark=("worse", 0.3))
    found = {**a["slices"]["slices"][0], "name": "cluster 3", "kind": "discovered", "where": "x"}
    b["slices"]["slices"].append(found)
    changed, _ = change_slices(a, b, NAMES)
    assert (changed.only_a, changed.only_b, changed.num_shared) == (["mine"], [], 1)


def test_one_name_with_two_queries_is_defined_differently(two):
    a, b = slices(mine=("worse", 0.3)), slices(mine=("worse", 0.3))
    b["slices"]["slices"][0]["where"] = "mine > 2"
    changed, _ = change_slices(a, b, NAMES)
    assert changed.redefined == [("mine", "mine > 1", "mine > 2")]
    assert changed.only_a == changed.only_b == [] and changed.num_shared == 0
    html = block_of(replace(compare(two), slices=changed))
    said = part_of(html, 'data-redefined="mine"', "</li>")
    assert "mine &gt; 1</code> with A" in said and "mine &gt; 2</code> with B" in said
    assert "Only with" not in html


def test_slices_of_another_model_than_was_scored_are_not_compared(tmp_path):
    runs = fabricate_two(tmp_path)
    path = runs[1].slices_path("valid")
    write_json(path, {**read_json(path), "weights_sha256": "f" * 64})
    comparison = compare(runs)
    assert comparison.slices is None
    assert "slices.json of B run is not of what metrics.json is of" in comparison.why_no_slices


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "slices.json of B run is absent: ml-core slice writes it."),
        ({"slices": {"format": 7}}, "slices.json of B run is of another format"),
        ({"slices": {"format": 1, "slices": [{"name": "x"}]}}, "slices.json of B run is damaged"),
    ],
)
def test_slices_that_cannot_be_compared_say_why(content, why):
    changed, said = change_slices(slices(dark=("worse", 0.3)), content, NAMES)
    assert changed is None and said.startswith(why)


def test_slices_of_other_patches_are_not_compared():
    a, b = slices(dark=("worse", 0.3)), slices(dark=("worse", 0.3))
    b["slices"]["slices"][0]["n"] = 90
    changed, said = change_slices(a, b, NAMES)
    assert changed is None and "dark has 100 with A run and 90 with B run" in said


def test_the_table_of_slices_shows_both_error_rates(two, comparison, html):
    assert comparison.slices.changes
    for each in comparison.slices.changes:
        row = part_of(html, f'data-changed-slice="{each.name}"', "</tr>")
        numbers = numbers_in(row)
        assert numbers[0] == each.n and numbers[-1] == each.difference
        assert {each.error_a.value, each.error_b.value} <= set(numbers)


# ---- the whole


def test_the_report_of_two_runs_holds_the_comparison_with_links_to_both(two, tmp_path):
    facts = [read_run_facts(run, page_dir=tmp_path) for run in two]
    compared = compare_runs(*facts, differences_of(*two), names=NAMES)
    path = render_report(two, tmp_path / "report.html", comparison=compared)
    whole = path.read_text(encoding="utf-8")
    assert whole.count('class="block failures compared"') == 1
    ids = re.findall(r'\bid="([^"]+)"', whole)
    assert len(ids) == len(set(ids)) and "compared" in ids
    block = block_of(compared)
    for run in facts:
        assert block.count(f'href="{run.folder}predictions/valid.parquet"') == 2
        assert (tmp_path / run.folder / "predictions" / "valid.parquet").is_file()


def test_names_that_look_like_html_stay_text(two):
    facts = [read_run_facts(run) for run in two]
    html = block_of(compare_runs(*facts, {}, names=("<b>a</b>", "<script>b")))
    assert "<script>b" not in html and "&lt;script&gt;b" in html
