import re
import shutil

import numpy as np
import pytest
from fabricated_failures import fabricate_failures
from fabricated_opening import fabricate_champion
from fabricated_run import fabricate_patches, fabricate_predictions, fabricate_run
from rendered_block import render_block

from ml_core.errors import DataError
from ml_core.evaluation.report import render_report
from ml_core.evaluation.report.failures import build_failures_page
from ml_core.evaluation.report.failures_files import read_contents
from ml_core.evaluation.report.failures_pictures import MAX_BYTES, first_of, take_pictures
from ml_core.evaluation.report.run_facts import read_run_facts
from ml_core.evaluation.report.slice_table import Score, largest_reach, slice_rows
from ml_core.evaluation.report.worst_slices import worst_slices
from ml_core.runs import RunDir, read_json, write_json

FILES = ("slices", "errors", "uncertainty", "explain")
PARTS_OF = {
    "slices": {"slices", "shortcuts"},
    "errors": {"errors"},
    "uncertainty": {"trust"},
    "explain": {"saliency", "visibility", "robustness"},
}
HOSTILE = "<script>alert('x')</script>&\""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with all four files, which tests only read."""
    run = fabricate_run(tmp_path_factory.mktemp("runs"), logs=False)
    fabricate_failures(run)
    return run


@pytest.fixture
def copy_of(run, tmp_path):
    """A copy of the run for a test to change, with those of the four files that it names."""

    def copy(*kept):
        own = RunDir(shutil.copytree(run.path, tmp_path / "run"))
        for what in set(FILES) - set(kept):
            own.result_path(what, "valid").unlink()
        return own

    return copy


@pytest.fixture(scope="module")
def page(run):
    return build(run, fabricate_patches)


@pytest.fixture(scope="module")
def html(page):
    return block_of(page)


def build(run, read_patches=None, **named):
    return build_failures_page(read_run_facts(run), "fails", read_patches, **named)


def block_of(page):
    return render_block("failures.html.j2", "failures_block", page)


def html_of(run, read_patches=None):
    return block_of(build(run, read_patches))


def change(run, what, **values):
    """Replace keys of one of the four files."""
    path = run.result_path(what, "valid")
    write_json(path, {**read_json(path), **values})


def part_of(html, opening, closing):
    start = html.index(opening)
    return html[start : html.index(closing, start)]


def numbers_in(html):
    return [float(value) for value in re.findall(r'<data value="([^"]+)"', html)]


# ---- slices


def test_every_number_in_a_row_of_the_table_is_the_one_in_slices_json(run, html):
    for slice_ in read_json(run.slices_path("valid"))["slices"]:
        if slice_["too_small"]:
            continue
        row = part_of(html, f'data-slice="{slice_["name"]}"', "</tr>")
        accuracy, error = slice_["metrics"]["accuracy"], slice_["differences"]["error"]
        rest = [
            slice_["metrics"][name][end]
            for name in ("recall", "specificity", "roc_auc")
            for end in ("value", "low", "high")
        ]
        expected = [
            slice_["n"], slice_["prevalence"], 1 - accuracy["value"], 1 - accuracy["high"],
            1 - accuracy["low"], error["value"], error["low"], error["high"], error["q"], *rest,
        ]  # fmt: skip
        assert numbers_in(row) == pytest.approx(expected, abs=1e-12)


def test_the_table_has_every_scored_slice_in_the_order_of_the_file(run, html):
    written = read_json(run.slices_path("valid"))["slices"]
    names = [each["name"] for each in written if not each["too_small"]]
    assert re.findall(r'data-slice="([^"]+)"', html) == names
    assert 'class="sortable slices"' in html


def test_a_row_opens_its_patches_and_all_its_scores_without_a_script(run, html):
    slices = read_json(run.slices_path("valid"))["slices"]
    details = part_of(html, 'data-slice="darkest fifth"', "</tbody>")
    details = part_of(details, "<details>", "</details>")
    (dark,) = [each for each in slices if each["name"] == "darkest fifth"]
    for metric in dark["metrics"].values():
        assert f'<data value="{metric["value"]}"' in details
    shown = re.findall(r"fails-valid-(\d+)", details)
    assert [int(index) for index in shown] == dark["examples"]


def test_a_patch_is_said_to_be_missed_or_a_false_alarm_by_label_and_threshold(run, html):
    predictions = fabricate_predictions()
    outcomes = re.findall(r'fails-valid-(\d+)" role="img" aria-label="Patch \d+, (\w+ \w+)"', html)
    assert len(outcomes) > 100
    for index, outcome in outcomes:
        label = predictions.labels[int(index)]
        called = predictions.y_prob[int(index)] >= 0.5
        assert outcome == {
            (1, True): "found tumour", (1, False): "missed tumour",
            (0, True): "false alarm", (0, False): "rightly normal",
        }[int(label), bool(called)]  # fmt: skip


def test_a_threshold_of_the_champion_decides_which_patches_are_wrong(copy_of):
    own_run = copy_of("slices")
    change(own_run, "slices", threshold=0.9, champion_sha256="c" * 64)
    page = build(own_run)
    probs, labels = fabricate_predictions().y_prob, fabricate_predictions().labels
    between = int(np.flatnonzero((labels == 1) & (probs > 0.6) & (probs < 0.9))[0])
    assert page.known.get(between).outcome == "missed tumour"
    assert "0.9000, as champion.json says" in html_of(own_run)


def test_probabilities_beneath_patches_are_calibrated_as_the_file_says(copy_of):
    own_run = copy_of("slices")
    calibration = {"kind": "temperature", "temperature": 2.0, "knots": [], "note": ""}
    change(own_run, "slices", calibration=calibration)
    logit = fabricate_predictions().logit[7]
    known = build(own_run).known.get(7)
    assert known.y_prob == pytest.approx(1 / (1 + np.exp(-logit / 2)))


def test_the_three_worst_slices_have_cards_with_their_share_of_errors(run, html):
    worst = [s for s in read_json(run.slices_path("valid"))["slices"] if s["standing"] == "worse"]
    assert re.findall(r'data-worst-slice="([^"]+)"', html) == [s["name"] for s in worst[:3]]
    card = part_of(html, "data-worst-slice", "</li>")
    assert numbers_in(card)[0] == pytest.approx(1 - worst[0]["metrics"]["accuracy"]["value"])


def test_too_small_is_said_with_the_reason_and_not_scored(html):
    assert 'data-too-small="near-blank"' in html and 'data-too-small="never"' in html
    said = part_of(html, 'data-too-small="never"', "</li>")
    assert "0 patches, 0 of them tumour; 30 and 10 of each class are needed" in said
    assert "your own" in said
    assert 'data-slice="never"' not in html


def test_what_is_undefined_is_a_dash_and_never_a_number(copy_of):
    own_run = copy_of("slices")
    slices = read_json(own_run.slices_path("valid"))["slices"]
    nothing = {"value": None, "low": None, "high": None}
    slices[0]["metrics"]["recall"] = nothing
    slices[0]["differences"]["error"] = {**nothing, "p": None, "q": None}
    change(own_run, "slices", slices=slices)
    row = part_of(html_of(own_run), f'data-slice="{slices[0]["name"]}"', "</tr>")
    assert row.count("–") >= 4
    assert "None" not in row and "nan" not in row


def test_found_slices_show_both_halves_and_the_unconfirmed_apart(run, html):
    found = read_json(run.slices_path("valid"))["discovery"]["slices"]
    assert set(re.findall(r'data-found="([^"]+)"', html)) == {each["name"] for each in found}
    card = part_of(html, 'data-found="dark and blurred"', "</li>\n")
    first = found[0]
    assert f"{100 * first['suggested']['error']:.1f} %" in card
    assert f"{100 * first['confirmed']['error']:.1f} %" in card
    assert f'<data value="{first["confirmed"]["difference"]["value"]}"' in card
    apart = part_of(html, "1 suggested, not confirmed", "</details>")
    assert 'data-found="pale and red"' in apart and "fails-valid" not in apart


def test_without_a_search_nothing_is_said_of_one(copy_of):
    own_run = copy_of("slices")
    change(own_run, "slices", discovery=None)
    assert "Found by search" not in html_of(own_run)


def test_no_slice_is_worse_where_none_is(copy_of):
    own_run = copy_of("slices")
    slices = read_json(own_run.slices_path("valid"))["slices"]
    for each in slices:
        each["standing"] = each["standing"].replace("worse", "not told apart")
    change(own_run, "slices", slices=slices, num_worse=0, discovery=None)
    html = html_of(own_run)
    assert "data-worst-slice" not in html
    assert re.search(r"0 of 32 slices\s+are worse", html)
    assert worst_slices(build(own_run)) is None


def test_the_verdict_gets_what_is_worse_and_what_was_confirmed_by_how_much_worse(run, page):
    content = read_json(run.slices_path("valid"))
    differences = {
        each["name"]: each["differences"]["error"]["value"]
        for each in content["slices"] if each["standing"] == "worse"
    } | {
        each["name"]: each["confirmed"]["difference"]["value"]
        for each in content["discovery"]["slices"] if each["is_confirmed"]
    }  # fmt: skip
    worst = worst_slices(page)
    names = sorted(differences, key=lambda name: -differences[name])
    assert [each.name for each in worst.slices] == names[:4]
    assert {each.is_found for each in worst.slices} == {True, False}
    assert (worst.split, worst.threshold, worst.file) == ("valid", 0.5, "slices.json")
    assert [each.name for each in worst_slices(page, most=2).slices] == names[:2]


def test_a_found_slice_in_the_verdict_says_what_it_counts_among_which_patches(copy_of):
    own_run = copy_of("slices")
    discovery = read_json(own_run.slices_path("valid"))["discovery"]
    found = discovery["slices"][0]
    found["target"] = "missed tumours"
    found["confirmed"] |= {"n": 43, "error": 0.721, "difference": {"value": 0.9, "low": 0.8,
                                                                   "high": 0.95}}  # fmt: skip
    change(own_run, "slices", discovery=discovery)
    first = worst_slices(build(own_run)).slices[0]
    assert (first.name, first.counted, first.rate.value) == (found["name"], 43, 0.721)
    assert (first.patches, first.wrong) == ("tumours", "missed")


@pytest.mark.parametrize(
    "values", [{"format": 2}, {"slices": [{}]}, {"weights_sha256": "f" * 64}, {"n": 3}]
)
def test_the_verdict_names_no_slice_of_a_file_that_cannot_be_used(copy_of, values):
    own_run = copy_of("slices")
    change(own_run, "slices", **values)
    assert worst_slices(build(own_run)) is None


def test_strips_reach_as_far_as_the_longest_interval(run):
    rows = slice_rows(read_json(run.slices_path("valid")))
    reach = largest_reach(rows)
    ends = [abs(end) for row in rows for end in (row.difference.low, row.difference.high) if end]
    assert reach - 0.1 < max(ends) <= reach
    assert largest_reach([]) == 0.1


def test_the_interval_of_an_error_is_that_of_the_accuracy_turned_round():
    assert Score(0.75, 0.5, 1.0).complement == Score(0.25, 0.0, 0.5)
    assert Score(None).complement == Score(None)


# ---- errors


def test_labels_in_doubt_are_shown_apart_from_errors_of_the_model(run, html):
    errors = read_json(run.errors_path("valid"))["errors"]
    for kind in ("false_negative", "false_positive", "label"):
        of_kind = [
            e["index"] for e in errors
            if ("label" if e["doubt"] == "label" else e["kind"]) == kind
        ]  # fmt: skip
        gallery = part_of(html, f'data-gallery="{kind}"', "</section>")
        shown = [int(index) for index in re.findall(r'data-error="(\d+)"', gallery)]
        assert shown == of_kind[:24]
        assert f"{len(of_kind)}" in gallery


def test_an_error_shows_its_probability_neighbours_flags_and_reasons(run, html):
    errors = read_json(run.errors_path("valid"))["errors"]
    error = next(each for each in errors if each["doubt"] == "label")
    card = part_of(html, f'data-error="{error["index"]}"', "</details>")
    assert f'<data value="{error["y_prob"]}"' in card
    assert "label errors" in card and error["why"][0] in card
    labels = re.findall(r'class="neighbour (\w+)"', card)
    assert labels == [("normal", "tumour")[n["label"]] for n in error["neighbours"]]
    assert "5 of 5 nearest train patches are labelled as the model says" in card


def test_errors_without_neighbours_or_seeds_are_shown_all_the_same(copy_of):
    own_run = copy_of("errors")
    errors = read_json(own_run.errors_path("valid"))["errors"]
    for error in errors:
        error |= {"neighbours": [], "neighbours_agree": None, "seeds_agree": None,
                  "label_belief": None, "doubt": "unclear", "why": [], "flags": []}  # fmt: skip
    change(own_run, "errors", errors=errors,
           doubtful_labels={"n": 0, "rule": "", "indices": []})  # fmt: skip
    gallery = part_of(html_of(own_run), 'data-gallery="false_positive"', "</section>")
    assert gallery.count("data-error") == 24
    assert "neighbour" not in gallery and "seeds" not in gallery


def test_the_galleries_add_up_to_all_errors(run, html, page):
    doubted = [e for e in read_json(run.errors_path("valid"))["errors"] if e["doubt"] == "label"]
    for gallery in page.errors.galleries[:2]:
        elsewhere = sum(each["kind"] == gallery.name for each in doubted)
        assert elsewhere and f"; {elsewhere} more under Labels in doubt" in part_of(
            html, f'data-gallery="{gallery.name}"', "</header>"
        )
        assert gallery.total + elsewhere == getattr(page.errors, f"{gallery.name}s")


@pytest.mark.parametrize(
    ("num_runs", "share", "said"),
    [(3, 0.5, "1 of 2 other seeds agrees"), (3, 1.0, "2 of 2 other seeds agree"),
     (2, 0.0, "0 of 1 other seed agree"), (4, 0.5, "seeds agree 50 %")],
)  # fmt: skip
def test_agreeing_seeds_are_counted_where_their_number_is_known(copy_of, num_runs, share, said):
    own_run = copy_of("errors", "uncertainty")
    seeds = read_json(own_run.uncertainty_path("valid"))["seeds"]
    change(own_run, "uncertainty", seeds={**seeds, "num_runs": num_runs})
    assert build(own_run).said_of_seeds(share) == said
    own_run.uncertainty_path("valid").unlink()
    assert build(own_run).said_of_seeds(share) == f"seeds agree {100 * share:.0f} %"


# ---- uncertainty, saliency, robustness, shortcuts


def test_abstention_is_told_in_the_numbers_of_the_file(run, html):
    written = read_json(run.uncertainty_path("valid"))["abstention"]
    said = part_of(html, "Left to a person", "</p>")
    numbers = numbers_in(said)
    assert numbers[:3] == [written["below"], written["above"], written["risk"]["value"]]
    assert f"{100 * written['coverage']:.1f} %" in said


def test_why_there_is_no_abstention_is_said(copy_of):
    own_run = copy_of("uncertainty")
    change(own_run, "uncertainty", abstention=None, seeds=None, why_no_abstention="too few.")
    html = html_of(own_run)
    assert "too few." in html and "Left to a person" not in html
    assert 'data-figure="risk_coverage"' in html and 'data-figure="votes"' not in html


def test_a_method_that_could_not_be_used_says_why(copy_of):
    own_run = copy_of("explain")
    explain = read_json(own_run.explain_path("valid"))
    methods = {**explain["saliency"]["methods"], "grad_cam": {"why_not": "no convolution here"}}
    change(own_run, "explain", saliency={**explain["saliency"], "methods": methods})
    html = html_of(own_run, fabricate_patches)
    assert "no convolution here" in part_of(html, 'data-method="Grad-CAM"', "</tr>")
    assert 'data-figure="mean_maps"' in html


def test_no_figure_is_drawn_where_no_method_could_be_used(copy_of):
    own_run = copy_of("explain")
    explain = read_json(own_run.explain_path("valid"))
    methods = {name: {"why_not": "none"} for name in explain["saliency"]["methods"]}
    change(own_run, "explain", saliency={**explain["saliency"], "methods": methods})
    page = build(own_run)
    assert page.saliency.figures == [] and len(page.saliency.methods) == 2
    assert page.findings == build_failures_page(read_run_facts(own_run), "fails", None).findings


def test_maps_lie_over_their_own_patches(run, page):
    written = read_json(run.explain_path("valid"))["saliency"]["examples"]
    assert [example.index for example in page.saliency.examples] == [e["index"] for e in written]
    pictures = {uri for example in page.saliency.examples for uri in example.overlays.values()}
    assert len(pictures) == 2 * len(written)


def test_the_worst_corruption_is_named_with_its_cost(run, html):
    section = part_of(html, 'id="fails-robustness"', 'data-figure="robustness"')
    assert "<b>brightness</b> (−70 levels), −0.290 ROC-AUC" in section
    assert "<b>blur</b> (2 px), −0.110 ROC-AUC" in section
    assert ">flat<" in section


def test_a_correlation_below_zero_has_a_true_minus(html):
    assert ">−0.02</data>" in part_of(html, 'data-method="occlusion"', "</tr>")


def test_what_costs_most_recall_is_in_points(copy_of):
    own_run = copy_of("explain")
    robustness = read_json(own_run.explain_path("valid"))["robustness"]
    difference = {"value": -0.438, "low": -0.502, "high": -0.373}
    worst = {**robustness["worst"], "metric": "recall", "difference": difference}
    change(own_run, "explain", robustness={**robustness, "worst_recall_in_train_range": worst})
    section = part_of(html_of(own_run), "Costs most recall", "</dd>")
    assert "−43.8</data> points of recall" in section


def test_every_property_stands_beside_the_model(run, html):
    for each in read_json(run.slices_path("valid"))["shortcuts"]["properties"]:
        row = part_of(html, f'data-property="{each["name"].replace("-", " ")}"', "</tr>")
        for number in (each["auc"], each["model_minus_it"], each["within_class"]["normal"]):
            assert f'<data value="{number["value"]}"' in row


# ---- what is absent, old, damaged, or of another model


def test_files_that_are_absent_are_named_with_the_command_that_writes_them(tmp_path):
    run = fabricate_run(tmp_path, logs=False)
    page = build(run)
    html = block_of(page)
    for what in FILES:
        assert f"<code>{what}.json</code> is absent" in html
    assert html.count(f"ml-core slice {run.path}</code>") == 3
    assert html.count(f"ml-core explain {run.path}</code>") == 1
    assert len(page.unread) == 4 and page.findings == [] and page.pictures.uris == {}


@pytest.mark.parametrize("what", FILES)
def test_each_file_may_be_there_alone(copy_of, what):
    page = build(copy_of(what))
    unread = [content.name for content in page.unread]
    assert unread == [f"{other}.json" for other in FILES if other != what]
    assert not any(finding.severity == "error" for finding in page.findings)
    assert f"<code>{what}.json</code> is absent" not in block_of(page)


@pytest.mark.parametrize("what", FILES)
def test_another_format_is_not_read_and_said_to_be_old(copy_of, what):
    own_run = copy_of(what)
    change(own_run, what, format=0)
    page = build(own_run)
    assert len(page.unread) == 4
    (old,) = [finding for finding in page.findings if finding.id == "old-format"]
    assert f"{what}.json is of format 0, and this version reads 1" in old.message
    assert f"ml-core {'explain' if what == 'explain' else 'slice'} " in old.message


@pytest.mark.parametrize("what", FILES)
def test_a_file_of_other_weights_is_an_error_that_names_both(copy_of, what):
    own_run = copy_of(what)
    change(own_run, what, weights_sha256="f" * 64)
    page = build(own_run)
    assert len(page.unread) == 4 and page.known.get(0) is None
    assert all(getattr(page, part) is None for part in PARTS_OF[what])
    assert f"<code>{what}.json</code> is not of what metrics.json is of" in block_of(page)
    (error,) = page.findings
    assert error.id == f"{what}-of-another-model"
    assert f"the weights are ffffffffffff, those scored are {'6e340b9cffb3'}" in error.message
    assert "metrics.json" in error.message


def test_a_file_of_other_patches_is_an_error(copy_of):
    own_run = copy_of("errors")
    change(own_run, "errors", n=1499, split="train")
    (error,) = [finding for finding in build(own_run).findings if finding.severity == "error"]
    assert "n is 1499, scored were 1500" in error.message
    assert "the split is train, not valid" in error.message


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("slices", {"slices": [{"name": "dark"}]}),
        ("slices", {"overall": {}}),
        ("slices", {"shortcuts": {"properties": [{}]}}),
        ("errors", {"errors": [{"index": 1}]}),
        ("errors", {"doubtful_labels": None}),
        ("uncertainty", {"risk_coverage": {"coverage": [1.0]}}),
        ("explain", {"saliency": {"n": 3}, "robustness": None}),
        ("explain", {"visibility": {"views": []}, "robustness": None}),
        ("explain", {"robustness": {"curves": "none", "metric": "roc_auc"}}),
    ],
)
def test_a_damaged_part_hides_only_itself_and_is_said(copy_of, what, values):
    own_run = copy_of(what)
    there = PARTS_OF[what] - {name for name, value in values.items() if value is None}
    change(own_run, what, **values)
    page = build(own_run)
    (damaged,) = [finding for finding in page.findings if finding.id.startswith("damaged")]
    assert f"{what}.json" in damaged.message and "Write it again with: ml-core" in damaged.message
    left = {name for name in there if getattr(page, name) is not None}
    assert len(there - left) == 1
    block_of(page)


def test_findings_of_each_file_and_of_its_parts_are_passed_on(copy_of):
    own_run = copy_of("errors", "explain")
    finding = {"id": "looks-away", "severity": "warning", "message": "It looks at the ring."}
    explain = read_json(own_run.explain_path("valid"))
    change(own_run, "explain", saliency={**explain["saliency"], "findings": [finding]})
    change(own_run, "errors", findings=[{**finding, "id": "doubt", "indices": [1, 2]}])
    page = build(own_run)
    assert {each.id for each in page.findings} == {"looks-away", "doubt"}
    assert "It looks at the ring." not in block_of(page)  # a warning belongs to the verdict
    change(own_run, "errors", findings=[{**finding, "severity": "info"}])
    assert "<li>It looks at the ring.</li>" in html_of(own_run)


def test_names_that_look_like_html_stay_text(copy_of):
    own_run = copy_of("slices", "errors")
    slices = read_json(own_run.slices_path("valid"))
    said = f"said {HOSTILE}"
    slices["slices"][0] |= {"name": HOSTILE, "said": said, "where": said, "note": said}
    slices["slices"][-1] |= {"name": HOSTILE, "too_small": HOSTILE}
    found = slices["discovery"]["slices"]
    found[0] |= {"name": HOSTILE, "where": said, "said": said, "looks": []}
    change(own_run, "slices", slices=slices["slices"], discovery=slices["discovery"])
    errors = read_json(own_run.errors_path("valid"))["errors"]
    errors[0] |= {"flags": [HOSTILE], "why": [HOSTILE]}
    change(own_run, "errors", errors=errors)
    html = html_of(own_run, fabricate_patches)
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html


# ---- pictures


def test_each_patch_is_embedded_once_however_often_it_is_shown(html):
    defined = re.findall(r"\.(fails-\w+-\d+)\{background-image", html)
    used = re.findall(r'class="pic (\S*)"', html)
    assert len(defined) == len(set(defined))
    assert len(used) > 1.5 * len(set(used)) and set(used) - {""} <= set(defined)
    assert '"pic "' not in html


def test_pictures_are_bounded_in_number_and_size(copy_of):
    page = build(copy_of("slices", "errors"), fabricate_patches, max_pictures=60)
    whole = [place for place in page.pictures.uris if place[0] == "valid"]
    small = [place for place in page.pictures.uris if place[0] == "train"]
    assert len(whole) + len(small) / 4 <= 60 and whole and small

    def noise(split, index):
        return np.random.default_rng(0).integers(0, 256, (len(index), 96, 96, 3), np.uint8)

    noisy = take_pictures(noise, [("valid", index) for index in range(200)], "a")
    assert sum(map(len, noisy.uris.values())) <= MAX_BYTES
    assert list(noisy.uris) == [("valid", index) for index in range(len(noisy.uris))]
    assert len(noisy.uris) > 100


def test_the_worst_slices_get_their_pictures_first(copy_of):
    page = build(copy_of("slices", "errors"), fabricate_patches, max_pictures=12)
    for row in page.slices.worst[:1]:
        assert page.pictures.shown("valid", row.examples[:8]) == list(row.examples[:8])


def test_a_patch_that_cannot_be_read_hides_only_itself(copy_of):
    run = copy_of("errors")

    def read(split, index):
        if split == "valid" and 328 in index:
            raise DataError("row 328 is damaged.")
        return fabricate_patches(split, index)

    whole, page = build(run, fabricate_patches), build(run, read)
    assert set(whole.pictures.uris) - set(page.pictures.uris) == {("valid", 328)}
    (finding,) = [each for each in page.findings if each.id == "patches-not-read"]
    assert "row 328 is damaged." in finding.message


def test_without_patches_everything_else_is_shown(copy_of):
    html = html_of(copy_of("slices", "errors"))
    assert "background-image" not in html and "data-slice" in html and "data-error" in html


def test_wishes_are_met_in_their_order_and_each_once():
    assert first_of([(1, 1), (1, 2)], [(1, 2), (1, 3)], [(1, 4)], most=3) == [
        (1, 1), (1, 2), (1, 3),
    ]  # fmt: skip


# ---- the whole


def test_the_report_holds_the_part_once_with_ids_of_its_own(run, html):
    whole = render_report([run], run.report_path, fabricate_patches).read_text(encoding="utf-8")
    assert whole.count("data-gallery") == html.count("data-gallery") == 3
    ids = re.findall(r'\bid="([^"]+)"', whole)
    assert len(ids) == len(set(ids))
    (labelled,) = re.findall(r'class="block failures" aria-labelledby="([^"]+)"', whole)
    assert f'href="#{labelled}"' in whole
    assert ".worst-card" in whole  # the style sheet


def test_every_source_is_a_link_to_a_file_of_the_run(html):
    for what in FILES:
        assert f'class="source" href="{what}.json"' in html


def test_the_same_files_give_the_same_block(run, html):
    assert html_of(run, fabricate_patches) == html


def test_the_test_split_has_its_own_part_and_its_own_command(tmp_path):
    run = fabricate_run(tmp_path, logs=False)
    fabricate_failures(run, split="test")
    run.uncertainty_path("test").unlink()
    page = build_failures_page(read_run_facts(run), "t", None, "test")
    assert page.slices is not None and page.contents["slices"].name == "slices-test.json"
    assert [each.command for each in page.unread] == ["ml-core slice champion.json --split test"]


def test_on_test_only_the_champion_is_recommended_and_explain_never(tmp_path):
    run = fabricate_run(tmp_path, logs=False)
    fabricate_failures(run, split="test")
    champion = {**fabricate_champion(run), "path": "my runs/champion.json"}
    facts = read_run_facts(run, champion)
    commands = {each.command for each in read_contents(facts, "test").values()}
    assert commands == {"ml-core slice 'my runs/champion.json' --split test"}
    page = build_failures_page(facts, "t", None, "test")
    assert page.saliency is None and page.visibility is None and page.robustness is None
    assert "explain" not in block_of(page)


def test_of_a_champion_the_commands_are_of_its_file_which_has_the_threshold(tmp_path):
    run = fabricate_run(tmp_path, logs=False)
    facts = read_run_facts(run, {**fabricate_champion(run), "path": "runs/champion.json"})
    contents = read_contents(facts, "valid")
    assert contents["slices"].command == "ml-core slice runs/champion.json"
    assert contents["explain"].command == "ml-core explain runs/champion.json"


def findings_at(run, champion=None):
    contents = read_contents(read_run_facts(run, champion), "valid")
    return {each.id: each for content in contents.values() for each in content.findings}


def test_results_at_another_threshold_are_said_with_the_commands_that_make_them_anew(copy_of):
    run = copy_of("slices", "explain")
    change(run, "slices", threshold=0.7)
    change(run, "explain", threshold=0.7)
    finding = findings_at(run)["results-of-another-operating-point"]
    assert "slices.json is raw, at threshold 0.7; explain.json is raw" in finding.message
    assert "where the scores are raw, at threshold 0.5" in finding.message
    assert f"ml-core explain {run.path} && ml-core slice {run.path}" in finding.action


@pytest.mark.parametrize("changed", [{"threshold": 0.7}, {"calibration": {"kind": "isotonic"}}])
def test_a_champion_of_other_numbers_is_another_point(copy_of, changed):
    run = copy_of("slices")
    champion = fabricate_champion(run)
    point = {"threshold": champion["threshold"]["value"], "calibration": champion["calibration"]}
    change(run, "slices", **{**point, "champion_sha256": champion["sha256"], **changed})
    assert "is a champion's, at" in (
        findings_at(run, champion)["results-of-another-operating-point"].message
    )


def test_another_champion_of_the_same_numbers_is_a_note_and_no_warning(copy_of):
    run = copy_of("slices")
    champion = fabricate_champion(run)
    point = {"threshold": champion["threshold"]["value"], "calibration": champion["calibration"]}
    change(run, "slices", **point, champion_sha256="1a2b3c4d" * 8)
    found = findings_at(run, champion)
    assert "results-of-another-operating-point" not in found
    note = found["results-of-another-champion"]
    assert note.severity == "info"
    assert (
        f"slices.json is of champion 1a2b3c4d, this page is of {champion['sha256'][:8]}"
        in note.message
    )
    change(run, "slices", **point, champion_sha256=champion["sha256"])
    assert not {"results-of-another-champion", "results-of-another-operating-point"} & set(
        findings_at(run, champion)
    )


def test_each_part_says_from_which_probability_on_tumour_is_called(copy_of):
    run = copy_of(*FILES)
    for what in FILES:
        change(run, what, threshold=0.1234)
    html = html_of(run)
    for part in ("errors", "trust", "looks", "robustness"):
        section = part_of(html, f'aria-labelledby="fails-{part}"', "</section>")
        assert "threshold 0.1234" in section


def test_a_path_with_a_space_is_quoted_in_the_command(tmp_path):
    run = fabricate_run(tmp_path / "my runs", logs=False)
    contents = read_contents(read_run_facts(run), "valid")
    assert contents["slices"].command == f"ml-core slice '{run.path}'"
